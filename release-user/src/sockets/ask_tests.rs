//! Real sockets on loopback: asking needs no root.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use super::*;

fn about(address: SocketAddr, protocol: Protocol) -> Question {
    Question { own: vec![address.ip()], targets: vec![Target { address, protocol }] }
}

fn tcp(address: SocketAddr) -> Summary {
    ask(&Namespace::Own, &about(address, Protocol::Tcp)).unwrap()
}

/// Asks until it is so; kernels do their part of a close in their own time.
fn until(address: SocketAddr, words: &str) -> Summary {
    for _ in 0..500 {
        let summary = tcp(address);
        if summary.in_words() == words {
            return summary;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("never {words:?}, but {:?}", tcp(address));
}

/// The life of a connection in the eyes of its server's kernel.
fn life(listener: &TcpListener, at: SocketAddr) {
    assert_eq!(tcp(at).in_words(), "no socket remains");
    assert!(tcp(at).serves());
    let mut client = TcpStream::connect(at).unwrap();
    let summary = until(at, "1 socket remains: 1 in accept queue");
    assert_eq!(summary.peers[0].remote, client.local_addr().unwrap());
    assert_eq!(summary.peers[0].inode, 0);
    let (server, _) = listener.accept().unwrap();
    let summary = until(at, "1 socket remains: 1 ESTABLISHED");
    assert!(summary.peers[0].inode > 0);
    client.write_all(b"unread").unwrap();
    assert_eq!(until(at, "1 socket remains: 1 ESTABLISHED").peers[0].unread, 6);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    until(at, "1 socket remains: 1 CLOSE_WAIT");
    // With unread data a close is a reset: no TIME_WAIT, nothing.
    drop(server);
    until(at, "no socket remains");
    drop(client);

    // A server that finishes first, and then closes.
    let client = TcpStream::connect(at).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.shutdown(std::net::Shutdown::Write).unwrap();
    until(at, "1 socket remains: 1 FIN_WAIT2");
    drop(server);
    let summary = until(at, "no socket remains");
    assert_eq!((summary.orphaned, summary.states[&State::FinWait2]), (1, 1));
    drop(client);
    for _ in 0..500 {
        if tcp(at).states.get(&State::TimeWait) == Some(&1) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no TIME_WAIT: {:?}", tcp(at));
}

#[test]
fn a_connection_from_its_request_to_its_end() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        life(&listener, listener.local_addr().unwrap());
    }
}

/// A listener on `::` serves IPv4 by IPv6 sockets with mapped addresses.
#[test]
fn wildcard_listeners_of_both_families() {
    for (bound, asked) in [("0.0.0.0:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::]:0", "::1")] {
        let listener = TcpListener::bind(bound).unwrap();
        let port = listener.local_addr().unwrap().port();
        life(&listener, SocketAddr::new(asked.parse().unwrap(), port));
        // Other addresses of the same listener have sockets of their own.
        let other = TcpStream::connect(("127.0.0.2", port));
        if let Ok(_client) = other {
            let (_server, _) = listener.accept().unwrap();
            let other = SocketAddr::new("127.0.0.2".parse().unwrap(), port);
            until(other, "1 socket remains: 1 ESTABLISHED");
            until(SocketAddr::new(asked.parse().unwrap(), port), "no socket remains");
        }
    }
}

/// Many sockets: all are counted, some are named.
#[test]
fn every_socket_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let held: Vec<_> =
        (0..300).map(|_| (TcpStream::connect(at).unwrap(), listener.accept().unwrap())).collect();
    let summary = until(at, "300 sockets remain: 300 ESTABLISHED");
    assert_eq!(summary.peers.len(), super::super::summary::MOST_PEERS);
    drop(held);
    until(at, "no socket remains");
}

#[test]
fn datagrams_that_nobody_reads() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = server.local_addr().unwrap();
    let words = || ask(&Namespace::Own, &about(at, Protocol::Udp)).unwrap().in_words();
    assert_eq!(words(), "no socket remains");
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"question", at).unwrap();
    assert_eq!(words(), "1 socket remains: 1 UDP with unread datagrams");
    server.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(words(), "no socket remains");
    server.connect(client.local_addr().unwrap()).unwrap();
    assert_eq!(words(), "1 socket remains: 1 UDP connected");
    // The other protocol has nothing at this address.
    assert_eq!(tcp(at).in_words(), "no socket remains");
    assert!(!tcp(at).serves());
}

#[test]
fn addresses_of_others_are_not_answered_for() {
    for address in ["203.0.113.7:80", "[2001:db8::7]:80"] {
        let error = ask(&Namespace::Own, &about(address.parse().unwrap(), Protocol::Tcp));
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("is no address there"), "{error}");
    }
}

#[test]
fn counters_are_found_by_name() {
    let text = "TcpExt: A SyncookiesSent C\nTcpExt: 1 22 3\nIpExt: X\nIpExt: 5\n";
    assert_eq!(named_counter(text, "SyncookiesSent"), Some(22));
    assert_eq!(named_counter(text, "X"), Some(5));
    assert_eq!(named_counter(text, "Y"), None);
    assert!(cookies_sent().is_some());
}
