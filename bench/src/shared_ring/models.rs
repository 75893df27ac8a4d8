//! Checked by loom under every order of two threads' steps:
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p nexusd-bench --lib models`

use loom::thread;

use super::*;

/// A ring of so many words.
fn new_ring(words: usize) -> (Writer, Reader) {
    let capacity = words * WORD_BYTES as usize;
    let memory = SharedMemory::zeroed(Ring::memory_bytes(1, capacity));
    both_ends(&Arc::new(memory), 0, capacity)
}

#[test]
fn every_word_arrives_once_and_in_order_however_the_threads_run() {
    loom::model(|| {
        let (mut writer, mut reader) = new_ring(2);
        let writing = thread::spawn(move || {
            for number in 1..=3_u64 {
                while writer.look().expect("an honest reader") == 0 {
                    thread::yield_now();
                }
                writer.write(&number.to_ne_bytes());
                writer.publish();
            }
        });
        for expected in 1..=3_u64 {
            while reader.look().expect("an honest writer") == 0 {
                thread::yield_now();
            }
            let mut word = [0; 8];
            reader.read(&mut word);
            reader.release();
            assert_eq!(u64::from_ne_bytes(word), expected);
        }
        writing.join().expect("no panic");
    });
}

/// One that sleeps though there is something for it would never end, which the model tells.
#[test]
fn no_wake_up_is_lost_either_way() {
    loom::model(|| {
        let (mut writer, mut reader) = new_ring(1);
        let reading = thread::current();
        let writing = thread::spawn(move || {
            for number in 1..=2_u64 {
                while writer.write(&number.to_ne_bytes()) == 0 {
                    writer.ring.fall_asleep(WRITER_SLEEPS);
                    if !writer.has_room().expect("an honest reader") {
                        thread::park();
                    }
                    writer.ring.wake_up(WRITER_SLEEPS);
                    writer.look().expect("an honest reader");
                }
                if writer.publish() {
                    reading.unpark();
                }
            }
        });
        for expected in 1..=2_u64 {
            let mut word = [0; 8];
            while reader.read(&mut word) == 0 {
                reader.ring.fall_asleep(READER_SLEEPS);
                if !reader.has_more().expect("an honest writer") {
                    thread::park();
                }
                reader.ring.wake_up(READER_SLEEPS);
                reader.look().expect("an honest writer");
            }
            if reader.release() {
                writing.thread().unpark();
            }
            assert_eq!(u64::from_ne_bytes(word), expected);
        }
        writing.join().expect("no panic");
    });
}
