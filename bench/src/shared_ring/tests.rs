use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nexusd_wire::{Cut, FrameCutter, FrameEncoder, FrameKind, Sequence, TopicId};
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_getfl, fcntl_setfl};
use rustix::fs::{ftruncate, memfd_create};
use rustix::io::Errno;

use super::*;

const CAPACITY: usize = 4096;

fn new_ring() -> (Writer, Reader) {
    let (memory, _) = SharedMemory::create(Ring::memory_bytes(1, CAPACITY)).expect("memory");
    both_ends(&Arc::new(memory), 0, CAPACITY)
}

fn message(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let header = Header::new(FrameKind::Message, 0, 0).with_topic(TopicId(1));
    FrameEncoder::message(&mut frame, &header, &[], payload);
    frame
}

#[test]
fn frames_of_every_size_come_out_as_they_went_in_wherever_the_ring_wraps() {
    let (mut writer, mut reader) = new_ring();
    let mut cutter = FrameCutter::new(u32::MAX, u32::MAX, usize::MAX);
    let mut buffer = vec![0; 1000];
    for size in (0..300).chain((300..3 * CAPACITY).step_by(331)) {
        let payload: Vec<u8> = (0..size).map(|at| (at * 7 + size) as u8).collect();
        let frame = message(&payload);
        let mut to_write = &frame[..];
        let mut arrived = false;
        while !arrived {
            writer.look().expect("an honest reader");
            to_write = &to_write[writer.write(to_write)..];
            writer.publish();
            reader.look().expect("an honest writer");
            let read = reader.read(&mut buffer);
            reader.release();
            let mut bytes = &buffer[..read];
            if let Cut::Frame(frame) = cutter.next(&mut bytes).expect("a whole frame") {
                assert_eq!(frame.payload(), payload);
                arrived = true;
            }
        }
        assert!(to_write.is_empty(), "the whole frame went in");
    }
}

#[test]
fn frames_go_from_ring_to_ring_under_private_headers() {
    let (mut writer, mut source) = new_ring();
    let (mut sink, mut reader) = new_ring();
    let payload = vec![3; 1001];
    for number in 1..50 {
        let frame = message(&payload);
        assert_eq!(writer.write(&frame), frame.len());
        writer.publish();
        source.look().expect("an honest writer");
        let header = source.peek_header().expect("a header").with_sequence(Sequence(number));
        source.skip(HEADER_BYTES);
        sink.look().expect("an honest reader");
        sink.write(header.bytes());
        assert_eq!(source.copy_to(&mut sink, usize::MAX), frame.len() - HEADER_BYTES);
        source.release();
        sink.publish();
        writer.look().expect("an honest reader");
        reader.look().expect("an honest writer");
        let mut copy = vec![0; frame.len()];
        assert_eq!(reader.read(&mut copy), copy.len());
        reader.release();
        assert_eq!(Header::peek(&copy).expect("a header").sequence(), Sequence(number));
        assert_eq!(copy[HEADER_BYTES..], frame[HEADER_BYTES..]);
    }
}

#[test]
fn a_full_ring_takes_what_fits_and_an_empty_one_gives_nothing() {
    let (mut writer, mut reader) = new_ring();
    assert_eq!(writer.write(&[1; CAPACITY + 8]), CAPACITY);
    assert_eq!(writer.write(&[1; 8]), 0);
    assert_eq!(reader.look(), Ok(0), "nothing was published");
    writer.publish();
    assert_eq!(reader.look(), Ok(CAPACITY));
    reader.skip(CAPACITY);
    assert_eq!(writer.look(), Ok(0), "nothing was released");
    reader.release();
    assert_eq!(writer.look(), Ok(CAPACITY));
}

/// A writer of 64 bytes has said that it is at `claimed`.
fn reader_told(claimed: u64) -> Result<usize, RingError> {
    let (mut writer, mut reader) = new_ring();
    writer.write(&[0; 64]);
    writer.publish();
    assert_eq!(reader.look(), Ok(64));
    writer.ring.number(TAIL).store(claimed, Ordering::Relaxed);
    let told = reader.look();
    assert!(told.is_ok() || reader.available() == 64, "what was refused changed nothing");
    told
}

/// A reader of 32 of 64 bytes has said that it is at `claimed`.
fn writer_told(claimed: u64) -> Result<usize, RingError> {
    let (mut writer, mut reader) = new_ring();
    writer.write(&[0; 64]);
    writer.publish();
    assert_eq!(reader.look(), Ok(64));
    reader.skip(32);
    reader.release();
    assert_eq!(writer.look(), Ok(CAPACITY - 32));
    reader.ring.number(HEAD).store(claimed, Ordering::Relaxed);
    let told = writer.look();
    assert!(told.is_ok() || writer.room() == CAPACITY - 32, "what was refused changed nothing");
    told
}

#[test]
fn a_hostile_writer_claims_no_more_than_the_ring_holds() {
    let limit = CAPACITY as u64;
    assert_eq!(reader_told(limit), Ok(CAPACITY));
    assert_eq!(reader_told(limit + 8), Err(RingError::Beyond { index: limit + 8, limit }));
    assert_eq!(reader_told(1 << 60), Err(RingError::Beyond { index: 1 << 60, limit }));
    assert_eq!(reader_told(56), Err(RingError::Backwards { before: 64, index: 56 }));
    let last = u64::MAX - 7;
    assert_eq!(reader_told(last), Err(RingError::Backwards { before: 64, index: last }));
    assert_eq!(reader_told(68), Err(RingError::Unaligned { index: 68 }));
}

#[test]
fn a_hostile_reader_frees_no_more_than_was_written() {
    assert_eq!(writer_told(64), Ok(CAPACITY));
    assert_eq!(writer_told(72), Err(RingError::Beyond { index: 72, limit: 64 }));
    assert_eq!(writer_told(24), Err(RingError::Backwards { before: 32, index: 24 }));
    assert_eq!(writer_told(33), Err(RingError::Unaligned { index: 33 }));
}

#[test]
fn what_was_read_and_not_released_cannot_be_overwritten_by_a_claim() {
    let (mut writer, mut reader) = new_ring();
    writer.write(&[0; CAPACITY]);
    writer.publish();
    assert_eq!(reader.look(), Ok(CAPACITY));
    reader.skip(64);
    let (index, limit) = (CAPACITY as u64 + 64, CAPACITY as u64);
    writer.ring.number(TAIL).store(index, Ordering::Relaxed);
    assert_eq!(reader.look(), Err(RingError::Beyond { index, limit }));
    reader.release();
    assert_eq!(reader.look(), Ok(CAPACITY));
}

#[test]
fn indexes_may_pass_the_largest_number() {
    let (mut writer, mut reader) = new_ring();
    let almost = u64::MAX - 15;
    (writer.tail, writer.published, writer.head) = (almost, almost, almost);
    (reader.tail, reader.released, reader.head) = (almost, almost, almost);
    writer.ring.number(TAIL).store(almost, Ordering::Relaxed);
    reader.ring.number(HEAD).store(almost, Ordering::Relaxed);
    writer.write(&[7; 64]);
    writer.publish();
    assert_eq!(reader.look(), Ok(64));
    let mut copy = [0; 64];
    assert_eq!(reader.read(&mut copy), 64);
    assert_eq!(copy, [7; 64]);
    reader.release();
    assert_eq!(writer.look(), Ok(CAPACITY));
    writer.ring.number(TAIL).store(almost, Ordering::Relaxed);
    assert!(matches!(reader.look(), Err(RingError::Backwards { .. })));
}

/// The header that was checked is the one that is used, whatever the writer makes of its own copy.
#[test]
fn a_length_that_changes_behind_the_check_changes_nothing() {
    let (mut writer, mut reader) = new_ring();
    writer.write(&message(&[1; 16]));
    writer.publish();
    reader.look().expect("an honest writer");
    let header = reader.peek_header().expect("a header");
    writer.ring.piece(0, 8)[0].store(u64::MAX, Ordering::Relaxed);
    assert_eq!(header.stride(), 64);
    assert!(header.check(0, 1 << 20, 1 << 20).is_ok());
    let changed = reader.peek_header().expect("a header");
    assert!(changed.check(0, 1 << 20, 1 << 20).is_err());
}

/// What a shard would do with a ring, until its client is found out; rounds it took.
fn serve_until_found_out(memory: &Arc<SharedMemory>) -> usize {
    let (mut source, mut sink) = (reader(memory, 0, CAPACITY), writer(memory, 1, CAPACITY));
    let mut buffer = [0; 1024];
    for round in 0..1000 {
        let looked = source.look().and_then(|_| sink.look());
        if looked.is_err() {
            return round;
        }
        if let Some(header) = source.peek_header() {
            if header.check(0, CAPACITY as u32, CAPACITY as u32).is_err() {
                return round;
            }
            source.copy_to(&mut sink, header.stride());
        }
        source.read(&mut buffer);
        sink.write(&buffer);
        source.release();
        sink.publish();
    }
    1000
}

#[test]
fn a_client_that_scribbles_over_everything_hurts_nobody_else() {
    let (memory, _) = SharedMemory::create(Ring::memory_bytes(2, CAPACITY)).expect("memory");
    let memory = Arc::new(memory);
    let done = Arc::new(AtomicBool::new(false));
    let scribbling = {
        let (memory, done) = (Arc::clone(&memory), Arc::clone(&done));
        thread::spawn(move || {
            let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
            let mut random = move || {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed
            };
            let words = memory.words();
            while !done.load(Ordering::Relaxed) {
                for start in [0, Ring::memory_bytes(1, CAPACITY) / 8] {
                    for which in [TAIL, HEAD, READER_SLEEPS, WRITER_SLEEPS] {
                        // Plausible ones, too: near to where the others are.
                        let bits = random() % 64;
                        words[start + which].store(random() >> bits, Ordering::Relaxed);
                    }
                }
                let word = (random() % words.len() as u64) as usize;
                words[word].store(random() % 8192, Ordering::Relaxed);
            }
        })
    };
    let found_out = (0..2000).filter(|_| serve_until_found_out(&memory) < 1000).count();
    done.store(true, Ordering::Relaxed);
    scribbling.join().expect("no panic");
    assert!(found_out > 1000, "nonsense is found out as a rule, not {found_out} times of 2000");
}

#[test]
fn memory_that_could_be_taken_away_is_refused() {
    let bytes = 4096;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let loose = memfd_create("loose", flags).expect("a file");
    ftruncate(&loose, bytes).expect("bytes");
    assert_eq!(SharedMemory::open(&loose, 4096).err(), Some(Errno::INVAL));
    fcntl_add_seals(&loose, SealFlags::SHRINK).expect("a seal");
    assert_eq!(SharedMemory::open(&loose, 4096).err(), Some(Errno::INVAL));
    let file = tempfile::tempfile().expect("a file");
    file.set_len(bytes).expect("bytes");
    assert!(SharedMemory::open(&file, 4096).is_err(), "it may be shortened");

    let (_, sealed) = SharedMemory::create(4096).expect("memory");
    assert_eq!(SharedMemory::open(&sealed, 8192).err(), Some(Errno::INVAL));
    assert!(SharedMemory::open(&sealed, 4096).is_ok());
    assert_eq!(ftruncate(&sealed, 0), Err(Errno::PERM));
    assert_eq!(ftruncate(&sealed, 8192), Err(Errno::PERM));
    assert_eq!(fcntl_add_seals(&sealed, SealFlags::WRITE), Err(Errno::PERM));
}

/// Why wake-ups go over the socket: a client could make a write to a shared eventfd wait for ever.
#[test]
fn whether_a_shared_eventfd_blocks_is_for_whoever_shares_it_to_say() {
    let flags = rustix::event::EventfdFlags::NONBLOCK;
    let ours = rustix::event::eventfd(0, flags).expect("an eventfd");
    // A descriptor that was passed on is a copy like this one.
    let theirs = ours.try_clone().expect("a copy");
    fcntl_setfl(&theirs, OFlags::empty()).expect("its mode");
    assert!(!fcntl_getfl(&ours).expect("its mode").contains(OFlags::NONBLOCK));
}

fn connections() -> (Connection, Connection) {
    let (server, client) = UnixStream::pair().expect("sockets");
    let server = Connection::offer(server, CAPACITY).expect("an offer");
    (server, Connection::accept(client).expect("the offer"))
}

#[test]
fn a_socket_without_an_offer_is_refused() {
    let (mut server, client) = UnixStream::pair().expect("sockets");
    std::io::Write::write_all(&mut server, b"shm ring\0\0\x01\0\0\0\0\0").expect("a greeting");
    assert!(matches!(Connection::accept(client), Err(ShmError::NotOffered)), "no descriptor");
}

#[test]
fn a_peer_that_dies_is_noticed_and_what_it_wrote_is_read() {
    let (mut server, mut client) = connections();
    assert_eq!(client.writer.write(&[5; 800]), 800);
    client.publish().expect("a server");
    drop(client);
    let mut buffer = [0; 4096];
    let wanted = [(&mut server, Until::MoreToRead)];
    assert_eq!(wait(wanted, Duration::ZERO).expect("bytes"), Event::Ready);
    assert_eq!(server.reader.read(&mut buffer), 800);
    let wanted = [(&mut server, Until::MoreToRead)];
    assert_eq!(wait(wanted, Duration::ZERO).expect("an end"), Event::Gone(0));
    server.release().expect("telling nobody is no error");
}

#[test]
fn who_waits_for_room_hears_of_the_end_too() {
    let (mut server, mut client) = connections();
    assert_eq!(server.writer.write(&[5; 2 * CAPACITY]), CAPACITY);
    server.publish().expect("a client");
    client.reader.look().expect("an honest server");
    client.reader.skip(8);
    client.release().expect("a server");
    drop(client);
    let wanted = [(&mut server, Until::Room)];
    assert_eq!(wait(wanted, Duration::ZERO).expect("an end"), Event::Gone(0));
}

#[test]
fn nobody_is_woken_who_is_awake() {
    let (mut server, mut client) = connections();
    for _ in 0..10 {
        client.writer.write(&[1; 64]);
        client.publish().expect("a server");
        server.reader.look().expect("an honest client");
        server.reader.skip(64);
        server.release().expect("a client");
        client.writer.look().expect("an honest server");
    }
    drop(client);
    let mut socket = UnixStream::from(server.as_fd().try_clone_to_owned().expect("a copy"));
    assert_eq!(socket.read(&mut [0; 16]).expect("the end"), 0, "no wake-up was sent");
}

#[test]
fn a_flood_of_wake_ups_fills_the_socket_and_holds_nobody() {
    let (mut server, mut client) = connections();
    for _ in 0..200_000 {
        // As if the client slept each time.
        client.reader.ring.fall_asleep(READER_SLEEPS);
        server.writer.write(&[1; 8]);
        server.publish().expect("never waits");
        client.reader.look().expect("an honest server");
        client.reader.skip(8);
        client.release().expect("a server");
        server.writer.look().expect("an honest client");
    }
}

/// Both sides sleep whenever they can, over a ring that is always full or empty. A lost wake-up would
/// leave both asleep.
#[test]
fn no_wake_up_is_lost() {
    const BYTES: usize = 40 << 20;
    let (mut server, mut client) = connections();
    let (said, heard) = mpsc::channel();
    let writing = thread::spawn(move || {
        let mut written = 0;
        while written < BYTES {
            client.writer.look().expect("an honest reader");
            // Sometimes a word, sometimes all that fits.
            let some = [1; CAPACITY];
            let wanted = if written % 24 == 0 { 8 } else { CAPACITY };
            match client.writer.write(&some[..wanted.min(BYTES - written)]) {
                0 => {
                    let waited = wait([(&mut client, Until::Room)], Duration::ZERO);
                    assert_eq!(waited.expect("room"), Event::Ready);
                }
                some => written += some,
            }
            client.publish().expect("a server");
        }
    });
    let reading = thread::spawn(move || {
        let mut read = 0;
        let mut buffer = [0; CAPACITY];
        loop {
            server.reader.look().expect("an honest writer");
            match server.reader.read(&mut buffer) {
                0 => {
                    let wanted = [(&mut server, Until::MoreToRead)];
                    if wait(wanted, Duration::ZERO).expect("bytes") != Event::Ready {
                        break;
                    }
                }
                some => read += some,
            }
            server.release().expect("a client");
        }
        said.send(read).expect("somebody listens");
    });
    let read = heard.recv_timeout(Duration::from_secs(60)).expect("nobody sleeps for ever");
    assert_eq!(read, BYTES);
    writing.join().expect("no panic");
    reading.join().expect("no panic");
}
