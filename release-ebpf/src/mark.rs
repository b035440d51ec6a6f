//! User space's notes on flows: probes under way, the order to end one.

use release_common::abi::{Addr6, Address, Be32, FlowKey};
use release_common::tcp::word::{FlowWord, Marks};

use crate::frame::XdpFrame;
use crate::maps::{FamilyMaps, shared};
use crate::order::{KEY4, KEY6, Order};

/// Puts the marks of the order in the frame on IPv4's flows.
#[inline(always)]
pub fn run4(frame: &XdpFrame) -> Option<()> {
    run::<KEY4, Be32>(frame)
}

/// Puts the marks of the order in the frame on IPv6's flows.
#[inline(always)]
pub fn run6(frame: &XdpFrame) -> Option<()> {
    run::<KEY6, Addr6>(frame)
}

#[inline(always)]
fn run<const KEY: usize, A: FamilyMaps + Address>(frame: &XdpFrame) -> Option<()>
where
    FlowKey<A>: bytemuck::Pod,
{
    let order = Order::read(frame)?;
    let marks = Marks(order.limit);
    order.each::<KEY, FlowKey<A>>(frame, |key| mark(key, marks))
}

/// Replaces the marks of a live flow.
#[inline(always)]
fn mark<A: FamilyMaps>(key: &FlowKey<A>, marks: Marks) -> bool {
    let Some(flow) = shared(A::flows().get_ptr_mut(key)) else { return false };
    let word = FlowWord(flow.state().get());
    let next = word.with_marks(marks);
    word.is_live() && flow.state().swap_if(word.0, next.0)
}
