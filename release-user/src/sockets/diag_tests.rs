//! Bytes written and read by hand from linux/inet_diag.h.

use super::*;

fn bytes(request: Request) -> Vec<u8> {
    let message = Message::Request(request);
    let mut bytes = vec![0xee; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[test]
fn a_question_with_its_filter() {
    let ends = ["10.0.0.1".parse().unwrap(), "0.0.0.0".parse().unwrap()];
    let found = bytes(Request::all(INET, 6, 1 << 10, &ends, 8080));
    assert_eq!(found.len(), 56 + 4 + 16 + 4 + 16);
    assert_eq!(found[..12], [2, 6, 0, 0, 0, 4, 0, 0, 0x1f, 0x90, 0, 0]);
    assert_eq!(found[12..56], [0; 44]);
    let port = 8080i32.to_le_bytes();
    let mut expected = vec![40, 0, 1, 0];
    // Holds: on to the jump, which leads to the very end. Else: behind the jump.
    expected.extend([7, 16, 20, 0, 2, 32, 0, 0]);
    expected.extend(port);
    expected.extend([10, 0, 0, 1]);
    expected.extend([1, 4, 20, 0]);
    // Holds: the end. Else: 4 bytes beyond it.
    expected.extend([7, 16, 20, 0, 2, 32, 0, 0]);
    expected.extend(port);
    expected.extend([0; 4]);
    assert_eq!(found[56..], expected);
}

/// Follows a program as the kernel's `inet_diag_bc_run` does.
fn accepts(program: &[u8], local: IpAddr, port: u16) -> bool {
    let (mut at, end) = (0, program.len());
    while at < end {
        let (code, yes) = (program[at], usize::from(program[at + 1]));
        let no = usize::from(u16::from_ne_bytes([program[at + 2], program[at + 3]]));
        let holds = code == 7 && {
            let width = usize::from(program[at + 5]) / 8;
            let wanted = i32::from_ne_bytes(program[at + 8..at + 12].try_into().unwrap());
            wanted == i32::from(port)
                && program[at + 12..at + 12 + width] == octets(local)[..width]
                && (width == 4) == local.is_ipv4()
        };
        at += if holds { yes } else { no };
    }
    at == end
}

#[test]
fn filters_accept_what_they_name() {
    let texts = ["::ffff:10.0.0.1", "::", "::ffff:0.0.0.0", "fd00::1"];
    let ends: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
    for count in 1..=ends.len() {
        let program = filter(&ends[..count], 443);
        for (index, end) in ends.iter().enumerate() {
            assert_eq!(accepts(&program, *end, 443), index < count, "{end} of {count}");
            assert!(!accepts(&program, *end, 80));
        }
        assert!(!accepts(&program, "10.0.0.1".parse().unwrap(), 443));
    }
}

/// An answer with attributes: `INET_DIAG_SHUTDOWN` (8) and `INET_DIAG_SKV6ONLY`.
fn answer(family: u8, v6only: u8) -> Vec<u8> {
    let mut bytes = vec![family, 10, 0, 0, 0x1f, 0x90, 0, 0];
    bytes.extend([0; 32]);
    bytes.extend([0; 12]);
    for number in [0u32, 3, 128, 0, 4711] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend([5, 0, 8, 0, 3, 0, 0, 0, 5, 0, 11, 0, v6only, 0, 0, 0]);
    bytes
}

fn read(bytes: &[u8]) -> Result<Message, DecodeError> {
    let mut header = NetlinkHeader::default();
    header.message_type = BY_FAMILY;
    Message::deserialize(&header, bytes)
}

#[test]
fn an_answer_is_read() {
    let Message::Found(found) = read(&answer(INET6, 1)).unwrap() else { panic!("a request") };
    assert_eq!(found.local, "[::]:8080".parse().unwrap());
    assert_eq!((found.state, found.receive_queue, found.send_queue), (10, 3, 128));
    assert_eq!((found.inode, found.v6only), (4711, true));
    let Message::Found(found) = read(&answer(INET, 0)).unwrap() else { panic!("a request") };
    assert_eq!((found.local, found.v6only), ("0.0.0.0:8080".parse().unwrap(), false));
}

#[test]
fn what_is_cut_off_does_no_harm() {
    let whole = answer(INET6, 1);
    for length in 0..whole.len() {
        match read(&whole[..length]) {
            Ok(Message::Found(found)) => {
                assert!(length >= 72);
                assert!(found.v6only == (length >= 85), "{length}");
            }
            Ok(_) => panic!("a request"),
            Err(_) => assert!(length < 72),
        }
    }
    assert!(read(&answer(1, 0)).is_err());
}
