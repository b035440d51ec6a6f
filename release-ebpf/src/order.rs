//! Orders of user space: a program run over a batch of keys (BPF_PROG_TEST_RUN), see [`Reap`].

use aya_ebpf::helpers::generated::bpf_jiffies64;
use release_common::abi::{Addr6, Be32, FlowKey, Reap, reap_result};
use release_common::packet::{Packet, View};

use crate::frame::XdpFrame;

/// Bytes of the head.
pub const HEAD: usize = size_of::<Reap>();
/// Bytes of a flow's key.
pub const KEY4: usize = size_of::<FlowKey<Be32>>();
/// The same, IPv6.
pub const KEY6: usize = size_of::<FlowKey<Addr6>>();

/// What user space wants.
pub struct Order {
    /// One of [`release_common::abi::reap_op`].
    pub op: u32,
    /// [`Reap::limit`].
    pub limit: u32,
    /// [`Reap::linger`].
    pub linger: u32,
    /// Jiffies.
    pub now: u32,
    count: u32,
}

impl Order {
    /// Reads the head of the frame.
    #[inline(always)]
    pub fn read(frame: &XdpFrame) -> Option<Self> {
        let head: View<'_, HEAD> = frame.view(0)?;
        // SAFETY: no arguments.
        let now = unsafe { bpf_jiffies64() } as u32;
        Some(Self {
            op: head.be32::<0>().0,
            limit: head.be32::<8>().0,
            linger: head.be32::<12>().0,
            now,
            count: head.be32::<4>().0,
        })
    }

    /// Hands each key to `done` and writes down what that says.
    #[inline(always)]
    pub fn each<const KEY: usize, K: bytemuck::Pod>(
        &self,
        frame: &XdpFrame,
        done: impl Fn(&K) -> bool,
    ) -> Option<()> {
        for index in 0..Reap::BYTES / KEY {
            if index as u32 >= self.count {
                break;
            }
            let view: View<'_, KEY> = frame.view(HEAD + index * KEY)?;
            let key: K = view.pod();
            let result = if done(&key) { reap_result::DONE } else { reap_result::KEPT };
            let last: View<'_, 1> = frame.view(HEAD + index * KEY + KEY - 1)?;
            last.set_u8::<0>(result);
        }
        Some(())
    }
}
