//! The PROXY protocol, versions 1 and 2, on listeners that ask for it: a TLS-terminating proxy tells whose connection
//! it is. (HAProxy's proxy-protocol.txt.) The address is used for limits and logs and never leaves the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest header read: 107 bytes of version 1; 16 + 4,096 of version 2, whose extensions are skipped.
pub const HEADER_BYTES_MAX: usize = 16 + 4096;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// What the first bytes of a connection say.
#[derive(Debug, PartialEq, Eq)]
pub enum Header {
    /// Not whole yet.
    More,
    /// So many bytes are the header; the address it names, `None` for the proxy's own checks (LOCAL, UNKNOWN).
    Whole(usize, Option<IpAddr>),
    /// No PROXY header: the connection is refused.
    Wrong,
}

/// Reads a header from the bytes received so far.
pub fn read(bytes: &[u8]) -> Header {
    let start = bytes.len().min(SIGNATURE.len());
    if bytes[..start] == SIGNATURE[..start] && !bytes.is_empty() {
        if bytes.len() < 16 { Header::More } else { read_binary(bytes) }
    } else {
        read_text(bytes)
    }
}

fn read_binary(bytes: &[u8]) -> Header {
    let length = 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if bytes[12] >> 4 != 2 || length > HEADER_BYTES_MAX {
        return Header::Wrong;
    }
    if bytes.len() < length {
        return Header::More;
    }
    let body = &bytes[16..length];
    match (bytes[12] & 0x0f, bytes[13]) {
        (0, _) => Header::Whole(length, None),
        (1, 0x11) if body.len() >= 12 => {
            Header::Whole(length, Some(IpAddr::V4(Ipv4Addr::new(body[0], body[1], body[2], body[3]))))
        }
        (1, 0x21) if body.len() >= 36 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&body[..16]);
            Header::Whole(length, Some(IpAddr::V6(Ipv6Addr::from(octets))))
        }
        (1, 0x00 | 0x31) => Header::Whole(length, None),
        _ => Header::Wrong,
    }
}

fn read_text(bytes: &[u8]) -> Header {
    const LINE_MAX: usize = 107;
    let start = bytes.len().min(6);
    if bytes[..start] != b"PROXY "[..start] {
        return Header::Wrong;
    }
    let Some(end) = bytes.iter().take(LINE_MAX).position(|&b| b == b'\n') else {
        return if bytes.len() >= LINE_MAX { Header::Wrong } else { Header::More };
    };
    let Some(line) = bytes[..end].strip_suffix(b"\r").and_then(|l| std::str::from_utf8(l).ok()) else {
        return Header::Wrong;
    };
    let mut words = line.split(' ').skip(1);
    match words.next() {
        Some("UNKNOWN") => Header::Whole(end + 1, None),
        Some("TCP4" | "TCP6") => match words.next().map(str::parse::<IpAddr>) {
            Some(Ok(address)) if words.count() == 3 => Header::Whole(end + 1, Some(address)),
            _ => Header::Wrong,
        },
        _ => Header::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_header_names_the_client() {
        let bytes = b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 5222\r\n<stream";
        assert_eq!(read(bytes), Header::Whole(42, Some("192.0.2.7".parse().expect("an address"))));
    }

    #[test]
    fn a_binary_header_names_the_client() {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x21, 0x11, 0, 12, 192, 0, 2, 7, 192, 0, 2, 1, 0x0f, 0xa0, 0x14, 0x66]);
        assert_eq!(read(&bytes), Header::Whole(28, Some("192.0.2.7".parse().expect("an address"))));
    }

    #[test]
    fn any_cut_of_a_header_asks_for_more() {
        let text = b"PROXY TCP6 2001:db8::1 2001:db8::2 4000 5222\r\n";
        for cut in 0..text.len() {
            assert_eq!(read(&text[..cut]), Header::More, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in [&b"<?xml version='1.0'?>"[..], b"PROXY TCP4 nonsense\r\n", &[b'P'; 200]] {
            assert_eq!(read(bytes), Header::Wrong);
        }
    }
}
