//! One question to the kernel over a netlink socket, asked and answered on the calling thread.
//!
//! The socket belongs to the network namespace that the thread is in, which is what asking in
//! another namespace needs; [`super::netlink`] asks in the daemon's own, from any task.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use rtnetlink::packet_core::{
    NetlinkDeserializable, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 1;
/// `NLM_F_ACK`: the kernel says so when it is done.
pub const ACKNOWLEDGE: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`: all that fit.
pub const DUMP: u16 = 0x300;

/// Bytes that the kernel's answers come in at most: larger parts are not made for a reader of
/// 32 KiB.
const PART: usize = 32 << 10;
/// The kernel answers within microseconds, or is in trouble.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No socket, or it broke.
    #[error("netlink socket: {0}")]
    Socket(#[from] Errno),
    /// The kernel's word.
    #[error("the kernel refuses: {0}")]
    Refused(Errno),
    /// The list changed under the kernel's hands, or did not fit.
    #[error("the kernel's answer is not whole")]
    Torn,
    /// What came is no netlink.
    #[error("the kernel's answer makes no sense: {0}")]
    Odd(String),
}

impl From<ExchangeError> for io::Error {
    fn from(error: ExchangeError) -> Self {
        Self::other(error)
    }
}

/// Sends a message and takes what comes back, up to the end of the list (a dump), the
/// acknowledgement, or, if `flags` ask for neither, the one answer.
///
/// # Errors
/// The socket's or the kernel's.
pub fn exchange<T>(protocol: SockProtocol, question: T, flags: u16) -> Result<Vec<T>, ExchangeError>
where
    T: NetlinkSerializable + NetlinkDeserializable,
{
    let fd = open(protocol)?;
    let mut message =
        NetlinkMessage::new(Default::default(), NetlinkPayload::InnerMessage(question));
    message.header.flags = REQUEST | flags;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    sendto(fd.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let single = flags & (DUMP | ACKNOWLEDGE) == 0;
    let mut answers = Vec::new();
    let mut part = vec![0; PART];
    loop {
        let length = loop {
            match recv(fd.as_raw_fd(), &mut part, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => {}
                result => break result?,
            }
        };
        if length > part.len() {
            return Err(ExchangeError::Torn);
        }
        if take(&part[..length], &mut answers)? || (single && !answers.is_empty()) {
            return Ok(answers);
        }
    }
}

fn open(protocol: SockProtocol) -> Result<OwnedFd, Errno> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(protocol))?;
    let patience = TimeVal::milliseconds(PATIENCE.as_millis() as i64);
    setsockopt(&fd, sockopt::ReceiveTimeout, &patience)?;
    Ok(fd)
}

/// Takes the messages of one part. Returns whether it was the last.
fn take<T: NetlinkDeserializable>(
    mut part: &[u8],
    answers: &mut Vec<T>,
) -> Result<bool, ExchangeError> {
    /// `NLM_F_DUMP_INTR`.
    const INTERRUPTED: u16 = 0x10;
    while !part.is_empty() {
        let message = NetlinkMessage::<T>::deserialize(part)
            .map_err(|error| ExchangeError::Odd(error.to_string()))?;
        if message.header.flags & INTERRUPTED != 0 {
            return Err(ExchangeError::Torn);
        }
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            NetlinkPayload::Done(done) if done.code < 0 => return Err(refused(done.code)),
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => {
                return match error.code {
                    None => Ok(true),
                    Some(code) => Err(refused(code.get())),
                };
            }
            NetlinkPayload::Overrun(_) => return Err(ExchangeError::Torn),
            _ => {}
        }
        // Messages begin at multiples of 4 bytes.
        let length = (message.header.length as usize).next_multiple_of(4);
        part = part.get(length..).unwrap_or_default();
    }
    Ok(false)
}

fn refused(code: i32) -> ExchangeError {
    ExchangeError::Refused(Errno::from_raw(-code))
}
