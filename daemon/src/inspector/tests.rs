use nexusd_core::inspection::Reply;
use nexusd_core::io::mailbox::{CommandReceiver, mailbox};
use tokio::time::{advance, sleep};

use super::*;

/// Commands that a mailbox holds.
const ROOM: usize = 1_024;

/// Shards that only this test answers for: their mailboxes, and who asks.
fn still(shards: usize) -> (Vec<CommandReceiver>, Arc<Questions>, Inspector) {
    let mailboxes = (0..shards).map(|_| mailbox(ROOM).expect("an eventfd"));
    let (senders, receivers) = mailboxes.unzip();
    let questions = Arc::new(Questions::new(shards));
    let inspector = Inspector::new(senders, Arc::clone(&questions), None);
    (receivers, questions, inspector)
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_gives_no_sign_of_life_is_late_and_after_a_minute_stuck() {
    let (mailboxes, questions, inspector) = still(2);
    let give =
        |shard| questions.on_reply(Reply { number: u64::MAX - shard, answer: Answer::Done(true) });
    assert_eq!(inspector.stuck(), None, "nobody asked before");
    give(0);
    let begun = Instant::now();
    let asked = async {
        sleep(Duration::from_secs(1)).await;
        give(0);
        std::future::pending::<()>().await;
    };
    let silent = tokio::select! {
        pulse = inspector.pulse() => pulse.expect_err("the second does not answer"),
        () = asked => unreachable!("it waits"),
    };
    assert_eq!(silent.to_string(), "shard 1 has given no sign of life for 2 s");
    assert_eq!(begun.elapsed(), ANSWER_TIMEOUT);
    advance(STUCK_AFTER).await;
    assert_eq!(inspector.stuck().expect("it is stuck").shard, 1);
    give(1);
    assert_eq!(inspector.stuck(), None);
    drop(mailboxes);
    inspector.pulse().await.expect("those that have ended are not waited for");
}

#[tokio::test(start_paused = true)]
async fn people_who_do_not_wait_fill_no_mailbox() {
    let (_mailboxes, _, inspector) = still(1);
    for _ in 0..2_000 {
        assert!(timeout(Duration::ZERO, inspector.pulse()).await.is_err());
        let asked = timeout(Duration::ZERO, inspector.count()).await;
        assert!(!matches!(asked, Ok(Ok(_))), "nobody answers");
        let listed = timeout(Duration::ZERO, list(&inspector)).await;
        assert!(!matches!(listed, Ok(Ok(_))), "nobody answers");
    }
    let room = (0..ROOM).take_while(|_| inspector.shards[0].send(Command::Sample).is_ok()).count();
    assert!(room > ROOM / 2, "{room} of {ROOM} are left for others");
}

/// A list of nothing.
async fn list(inspector: &Inspector) -> Result<Listed<()>, Unanswered> {
    let page = async |_: &Listing<'_>, page: Vec<()>| Ok((page, 0));
    inspector.list(Subject::Filters, usize::MAX, |_, _| vec![()], page).await
}

#[tokio::test(start_paused = true)]
async fn a_list_without_answers_is_refused_and_one_that_runs_out_of_time_is_cut() {
    let (_mailboxes, questions, inspector) = still(1);
    assert_eq!(list(&inspector).await.expect_err("nobody answers"), Unanswered::Busy);
    let answer = async {
        // The first question was never answered.
        for number in 1.. {
            sleep(ANSWER_TIMEOUT - Duration::from_millis(100)).await;
            let answer = Answer::Page { entries: Entries::Filters(Vec::new()), next: Some(number) };
            questions.on_reply(Reply { number, answer });
        }
    };
    let begun = Instant::now();
    let listed = tokio::select! {
        listed = list(&inspector) => listed.expect("what there is"),
        () = answer => unreachable!("it goes on"),
    };
    assert_eq!((listed.entries.len(), listed.is_truncated), (2, true));
    assert_eq!(begun.elapsed(), LIST_TIMEOUT);
}
