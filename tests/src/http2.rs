//! A client that speaks HTTP/2 frame by frame, to say what no library would, and to leave unread what it likes.

use std::io::{self, Read, Write};
use std::time::Duration;

use prost::Message;
use socket2::Socket;

use crate::SOON;
use crate::address::Address;

/// What a client says first: the preface, and settings without any.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
/// The widest window that there can be.
pub const WIDEST: u32 = i32::MAX as u32;
/// What the kernel takes in for a client that does not read, in bytes.
const RECEIVE_BUFFER: usize = 4_096;

/// The kinds of frames that are looked at.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// A connection.
#[derive(Debug)]
pub struct Http2 {
    socket: Socket,
    next_call: u32,
}

/// What a daemon says of a call, or of all of them (0).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// Bytes of an answer.
    Data(u32, Vec<u8>),
    /// The head of an answer.
    Head(u32),
    /// The end of an answer.
    End(u32),
    /// The call was reset.
    Reset(u32),
    /// The connection ends.
    Goodbye,
    /// More may be sent.
    Wider(u32),
    /// Anything else.
    Other,
}

impl Http2 {
    /// Connects, and says nothing.
    ///
    /// # Panics
    /// If there is no daemon.
    pub fn dial(address: &Address) -> Self {
        let socket = address.connect(Some(RECEIVE_BUFFER)).expect("a daemon");
        socket.set_read_timeout(Some(SOON)).expect("a time");
        Self { socket, next_call: 1 }
    }

    /// Connects and says what it has to; of each answer the daemon may send so many bytes unasked.
    pub fn connect(address: &Address, window: u32) -> Self {
        let mut http2 = Self::dial(address);
        let mut settings = 4u16.to_be_bytes().to_vec();
        settings.extend_from_slice(&window.to_be_bytes());
        let wider = (WIDEST - 65_535).to_be_bytes();
        http2.say(&[
            &PREFACE[..24],
            &frame(SETTINGS, 0, 0, &settings),
            &frame(WINDOW_UPDATE, 0, 0, &wider),
        ]);
        http2
    }

    /// Waits longer for what comes.
    ///
    /// # Panics
    /// If that cannot be set.
    pub fn be_patient(&mut self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).expect("a time");
    }

    /// Sends these bytes.
    ///
    /// # Panics
    /// If the daemon does not take them.
    pub fn say(&mut self, parts: &[&[u8]]) {
        self.try_say(parts).expect("it is read");
    }

    /// The same; the daemon may be gone.
    pub fn try_say(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.socket.write_all(&parts.concat())
    }

    /// Makes a call with one message, and nothing behind it; its number.
    pub fn call(&mut self, path: &str, message: &impl Message) -> u32 {
        let call = self.next_call;
        self.next_call += 2;
        let message = message.encode_to_vec();
        let mut body = vec![0];
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(&message);
        self.say(&[&frame(HEADERS, 4, call, &head(path)), &frame(DATA, 1, call, &body)]);
        call
    }

    /// Lets the daemon send so many bytes more of an answer.
    pub fn widen(&mut self, call: u32, bytes: u32) {
        self.say(&[&frame(WINDOW_UPDATE, 0, call, &bytes.to_be_bytes())]);
    }

    /// What comes next; `None`: the daemon has closed. Pings are answered.
    ///
    /// # Panics
    /// If nothing comes [`SOON`].
    pub fn hear(&mut self) -> Option<Said> {
        let mut header = [0; 9];
        if !self.read(&mut header) {
            return None;
        }
        let [high, middle, low, kind, flags, id @ ..] = header;
        let mut body = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        if !self.read(&mut body) {
            return None;
        }
        let (call, is_last) = (u32::from_be_bytes(id), flags & 1 != 0);
        Some(match kind {
            DATA => Said::Data(call, body),
            HEADERS if is_last => Said::End(call),
            HEADERS => Said::Head(call),
            RST_STREAM => Said::Reset(call),
            GOAWAY => Said::Goodbye,
            WINDOW_UPDATE => Said::Wider(call),
            PING if !is_last => {
                // The daemon may have closed since.
                let _ = self.try_say(&[&frame(PING, 1, 0, &body)]);
                Said::Other
            }
            _ => Said::Other,
        })
    }

    fn read(&mut self, bytes: &mut [u8]) -> bool {
        match self.socket.read_exact(bytes) {
            Ok(()) => true,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                panic!("the daemon says nothing and does not close")
            }
            Err(_) => false,
        }
    }

    /// Reads until the daemon says that.
    ///
    /// # Panics
    /// If it closes before.
    pub fn until(&mut self, wanted: impl Fn(&Said) -> bool) -> Said {
        loop {
            let said = self.hear().expect("the daemon closed");
            if wanted(&said) {
                return said;
            }
        }
    }

    /// Reads until the daemon closes.
    pub fn until_closed(&mut self) {
        while self.hear().is_some() {}
    }

    /// Whether a call is answered with a message; otherwise it is refused.
    pub fn is_answered(&mut self, path: &str, message: &impl Message) -> bool {
        let asked = self.call(path, message);
        let said = self.until(|said| match said {
            Said::Data(call, _) | Said::End(call) | Said::Reset(call) => *call == asked,
            _ => false,
        });
        matches!(said, Said::Data(..))
    }
}

/// A frame.
pub fn frame(kind: u8, flags: u8, call: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&call.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The head of a call, neither indexed nor compressed.
pub fn head(path: &str) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "nexusd"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        head.push(0);
        for text in [name, value] {
            head.push(text.len() as u8);
            head.extend_from_slice(text.as_bytes());
        }
    }
    head
}
