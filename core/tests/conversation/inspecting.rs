//! What a shard tells the rest of the daemon about itself, and what it lets others do to clients.

use nexusd_core::inspection::{
    Answer, ClientEntry, Entries, FilterEntry, LinkEntry, Request, RetainedEntry, Subject,
    SubscriptionEntry, TopicEntry, WantedEntry,
};
use nexusd_core::limits::{CLIENT_NAME_BYTES_MAX, INSPECTION_ENTRIES, INSPECTION_LOOKS};
use nexusd_core::{Limits, PeerAddress};
use nexusd_wire::control::{ErrorCode, OverflowPolicy, Role};
use nexusd_wire::{FrameEncoder, MessageFlags, NodeId, SubscribeRequest};

use crate::desk::{Desk, Heard, START_US, SeatId};
use crate::pair::{PLAIN, Pair, id};

const MANY: usize = 1_000_000;

/// All pages of a list of one shard, and how many there were.
fn pages(
    desk: &mut Desk,
    shard: usize,
    subject: &Subject,
    entries: usize,
) -> (Vec<Entries>, usize) {
    let (mut cursor, mut pages) = (0, Vec::new());
    loop {
        let request = Request::List { subject: subject.clone(), cursor, entries };
        let Answer::Page { entries, next } = desk.ask(shard, request) else {
            panic!("a list is answered with a page");
        };
        pages.push(entries);
        let count = pages.len();
        match next {
            Some(next) => cursor = next,
            None => return (pages, count),
        }
    }
}

macro_rules! list {
    ($name:ident, $variant:ident, $entry:ty) => {
        /// The list of one shard, asked for in pages of so many entries.
        fn $name(desk: &mut Desk, shard: usize, subject: &Subject, entries: usize) -> Vec<$entry> {
            let of_page = |page| match page {
                Entries::$variant(page) => page,
                other => panic!("other entries than were asked for: {other:?}"),
            };
            pages(desk, shard, subject, entries).0.into_iter().flat_map(of_page).collect()
        }
    };
}

list!(topics, Topics, TopicEntry);
list!(wanted, Wanted, WantedEntry);
list!(retained, Retained, RetainedEntry);
list!(filters, Filters, FilterEntry);
list!(subscriptions, Subscriptions, SubscriptionEntry);
list!(clients, Clients, ClientEntry);
list!(links, Links, LinkEntry);

/// What is known of one client.
fn client(desk: &mut Desk, seat: SeatId) -> ClientEntry {
    let (home, connection) = (desk.home(seat), desk.connection(seat));
    let found = clients(desk, home, &Subject::Clients(Some(connection)), 1);
    found.into_iter().next().expect("a client that is there")
}

fn names(topics: &[TopicEntry]) -> Vec<&str> {
    let mut names: Vec<_> = topics.iter().map(|topic| &*topic.name).collect();
    names.sort_unstable();
    names
}

#[test]
fn topics_are_listed_with_their_newest_number_and_whether_they_have_a_value() {
    let mut desk = Desk::new();
    let publisher = desk.greet();
    for (topic, name) in ["a/1", "a/2", "b"].into_iter().enumerate() {
        desk.bind(publisher, topic as u32, name);
        desk.publish(publisher, topic as u32, b"x", MessageFlags::default());
    }
    desk.publish(publisher, 1, b"kept", MessageFlags::RETAIN);
    desk.publish(publisher, 2, b"kept", MessageFlags::RETAIN);
    desk.publish(publisher, 2, b"", MessageFlags::RETAIN);
    let all = topics(&mut desk, 0, &Subject::Topics(None), MANY);
    assert_eq!(names(&all), ["a/1", "a/2", "b"]);
    let found = |name: &str| all.iter().find(|topic| &*topic.name == name).expect("listed");
    assert_eq!((found("a/1").messages, found("a/1").is_retained), (1, false));
    assert_eq!((found("a/2").messages, found("a/2").is_retained), (2, true));
    assert_eq!((found("b").messages, found("b").is_retained), (3, false), "it was cleared");
    for (filter, expected) in
        [("a/+", vec!["a/1", "a/2"]), ("b", vec!["b"]), ("c", vec![]), ("#", names(&all))]
    {
        let some = topics(&mut desk, 0, &Subject::Topics(Some(filter.into())), MANY);
        assert_eq!(names(&some), expected, "{filter}");
    }
}

#[test]
fn a_long_list_comes_in_many_small_pages_and_is_whole() {
    let mut desk = Desk::new();
    let publisher = desk.greet();
    let count = 2 * INSPECTION_LOOKS + 1;
    for topic in 0..count as u32 {
        desk.bind(publisher, topic, &format!("t/{topic}"));
    }
    let subject = Subject::Topics(None);
    let all = topics(&mut desk, 0, &subject, MANY);
    let mut found = names(&all);
    found.dedup();
    assert_eq!(found.len(), count);
    let (all, of_page) = pages(&mut desk, 0, &subject, MANY);
    assert!(of_page >= count.div_ceil(INSPECTION_ENTRIES));
    for page in all {
        assert!(matches!(page, Entries::Topics(page) if page.len() <= INSPECTION_ENTRIES));
    }
    // What does not match is looked at as well, and a page of it is empty.
    let (none, of_page) = pages(&mut desk, 0, &Subject::Topics(Some("x/+".into())), MANY);
    assert!(of_page >= count.div_ceil(INSPECTION_LOOKS), "{of_page} pages");
    assert!(none.iter().all(|page| *page == Entries::Topics(Vec::new())));
    assert_eq!(topics(&mut desk, 0, &subject, 7).len(), count, "in pages of seven");
    let behind = Request::List { subject, cursor: u64::MAX, entries: 1 };
    let nothing = Answer::Page { entries: Entries::Topics(Vec::new()), next: None };
    assert_eq!(desk.ask(0, behind), nothing);
}

#[test]
fn every_shard_tells_how_many_of_its_subscriptions_and_links_want_a_topic() {
    let mut pair = Pair::linked(3);
    let desk = &mut pair.desks[0];
    for filters in [&["a", "+"][..], &["a"], &["b/#"]] {
        let client = desk.greet();
        desk.subscribe(client, filters);
    }
    pair.tell_interest(1, &["b/#"]);
    let desk = &mut pair.desks[0];
    let subject = Subject::Wanted(["a", "b", "c/d"].map(Box::from).into());
    let mut sum = [WantedEntry::default(); 3];
    for shard in 0..3 {
        for (sum, of_shard) in sum.iter_mut().zip(wanted(desk, shard, &subject, 1)) {
            sum.subscriptions += of_shard.subscriptions;
            sum.peers += of_shard.peers;
        }
    }
    let expected =
        [(2, 0), (2, 1), (0, 0)].map(|(subscriptions, peers)| WantedEntry { subscriptions, peers });
    assert_eq!(sum, expected, "a subscription with two filters that match counts once");
}

#[test]
fn filters_are_listed_with_how_many_have_them_and_without_those_of_other_nodes() {
    let mut pair = Pair::linked(1);
    let desk = &mut pair.desks[0];
    for filters in [&["a/+", "#"][..], &["a/+"]] {
        let client = desk.greet();
        desk.subscribe(client, filters);
    }
    pair.tell_interest(1, &["theirs", "a/+"]);
    let mut found = filters(&mut pair.desks[0], 0, &Subject::Filters, 1);
    found.sort_by(|one, other| one.filter.cmp(&other.filter));
    let entry = |filter: &str, subscriptions| FilterEntry { filter: filter.into(), subscriptions };
    assert_eq!(found, [entry("#", 1), entry("a/+", 2)]);
}

#[test]
fn retained_values_are_listed_with_their_origin_and_how_long_they_stand() {
    let mut desk = Desk::new();
    let publisher = desk.greet();
    for (topic, name) in ["forever", "brief", "cleared"].into_iter().enumerate() {
        desk.bind(publisher, topic as u32, name);
    }
    desk.publish(publisher, 0, b"12345", MessageFlags::RETAIN);
    desk.retain_for(publisher, 1, b"1", 1_000);
    desk.publish(publisher, 2, b"1", MessageFlags::RETAIN);
    desk.publish(publisher, 2, b"", MessageFlags::RETAIN);
    let mut found = retained(&mut desk, 0, &Subject::Retained(None), MANY);
    found.sort_by(|one, other| one.topic.cmp(&other.topic));
    let [brief, forever] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&*forever.topic, forever.payload_bytes, forever.expires_us), ("forever", 5, None));
    assert_eq!((forever.origin, forever.timestamp_us), (NodeId(1), START_US));
    assert!(
        brief.expires_us.is_some_and(|left_us| (1..=1_001_000).contains(&left_us)),
        "{brief:?}"
    );
    let one = retained(&mut desk, 0, &Subject::Retained(Some("brief".into())), MANY);
    assert_eq!(one, std::slice::from_ref(brief));
}

#[test]
fn a_subscription_is_listed_with_its_queue_and_what_it_lost() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    let subscription = desk.subscribe_with(subscriber, &["t", "u"], OverflowPolicy::DropNewest, 4);
    desk.heard(subscriber);
    desk.bind(publisher, 0, "t");
    desk.publish(publisher, 0, b"first", MessageFlags::default());
    desk.stall(subscriber);
    for _ in 0..7 {
        desk.publish(publisher, 0, b"x", MessageFlags::default());
    }
    let found = subscriptions(&mut desk, 0, &Subject::Subscriptions, MANY);
    let [entry] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (entry.subscription, entry.client),
        (subscription, Some(desk.connection(subscriber)))
    );
    assert_eq!(*entry.filters, ["t", "u"].map(Box::from));
    assert_eq!((entry.queued_messages, entry.limit_messages, entry.dropped), (4, 4, 3));
    assert_eq!((entry.sent, entry.unacknowledged), (1, 0));
    assert_eq!((entry.policy, entry.parked_for_us), (OverflowPolicy::DropNewest, None));
    assert!(entry.queued_bytes > 0 && !entry.is_leaving);
}

#[test]
fn a_parked_subscription_is_listed_without_a_client_and_keeps_its_count() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    let request = SubscribeRequest {
        request: 1,
        filters: &["t"],
        counted: true,
        ..SubscribeRequest::default()
    };
    desk.subscribe_as(subscriber, &request);
    desk.bind(publisher, 0, "t");
    desk.publish(publisher, 0, b"x", MessageFlags::default());
    desk.end(subscriber);
    desk.publish(publisher, 0, b"x", MessageFlags::default());
    let found = subscriptions(&mut desk, 0, &Subject::Subscriptions, MANY);
    let [entry] = &found[..] else { panic!("{found:?}") };
    assert_eq!((entry.client, entry.parked_for_us), (None, Some(300_000_000)));
    assert_eq!((entry.queued_messages, entry.sent, entry.unacknowledged), (1, 1, 1));
}

#[test]
fn a_client_is_listed_with_what_it_calls_itself_and_what_it_has_done() {
    for shards in [1, 3] {
        let mut desk =
            Desk::with_shards(Limits { memory_bytes: 16 << 20, ..Limits::default() }, shards);
        let address = PeerAddress::Tcp(([192, 0, 2, 1], 40_000).into());
        let publisher = desk.greet_from(address);
        let subscriber = desk.greet();
        desk.subscribe(subscriber, &["#"]);
        desk.subscribe(subscriber, &["t/0"]);
        // Topics of all shards, in turn, so that runs and batches end often.
        for topic in 0..9 {
            desk.bind(publisher, topic, &format!("t/{topic}"));
        }
        desk.publish_all(publisher, &[0, 0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 0]);
        desk.publish(publisher, 3, b"acknowledged", MessageFlags::ACK);
        desk.publish(publisher, 4, &vec![7; 200 << 10], MessageFlags::default());
        desk.pass(1_000);
        let found = client(&mut desk, publisher);
        assert_eq!((&*found.name, &*found.software), ("tester", "test"));
        assert_eq!((found.address, found.is_edge), (address, false));
        assert_eq!((found.messages_in, found.messages_out), (15, 0), "{shards} shards");
        assert_eq!((found.topics_bound, found.subscriptions), (9, 0));
        assert_eq!((found.connected_us, found.silent_us), (1_000, 1_000));
        let found = client(&mut desk, subscriber);
        assert_eq!((found.messages_in, found.messages_out), (0, 15 + 3), "{shards} shards");
        assert_eq!((found.subscriptions, found.is_blocked), (2, false));
        let listed: usize = (0..shards)
            .map(|shard| clients(&mut desk, shard, &Subject::Clients(None), 1).len())
            .sum();
        assert_eq!(listed, 2);
    }
}

#[test]
fn publishers_that_share_a_turn_are_counted_each_for_itself() {
    let mut desk = Desk::with_shards(Limits { memory_bytes: 16 << 20, ..Limits::default() }, 2);
    let publishers: Vec<_> = (0..4).map(|_| desk.greet()).collect();
    for round in 1..=3 {
        for (at, publisher) in publishers.iter().enumerate() {
            if round == 1 {
                desk.bind(*publisher, 0, "t/0");
                desk.bind(*publisher, 1, "t/1");
            }
            desk.publish_all(*publisher, &vec![(at % 2) as u32; at + 1]);
        }
        for (at, publisher) in publishers.iter().enumerate() {
            assert_eq!(client(&mut desk, *publisher).messages_in, round * (at as u64 + 1));
        }
    }
}

#[test]
fn a_publisher_that_may_go_on_is_counted_apart_from_whose_words_let_it() {
    let mut desk = Desk::new();
    let (subscriber, held) = (desk.greet(), desk.greet());
    let subscription = desk.subscribe_with(subscriber, &["t"], OverflowPolicy::Block, 2);
    desk.bind(held, 0, "t");
    desk.bind(subscriber, 0, "other");
    desk.stall(subscriber);
    // Beyond the queue and what a held publisher is still read.
    for _ in 0..20 {
        desk.publish(held, 0, &vec![1; 100 << 10], MessageFlags::default());
    }
    let before = client(&mut desk, held);
    assert!(before.is_held_back && before.messages_in < 20, "{before:?}");
    // With one receive the subscriber publishes and ends what holds the publisher back.
    let mut bytes = desk.message(subscriber, 0, b"x", MessageFlags::default());
    FrameEncoder::new().unsubscribe(&mut bytes, 2, subscription, false);
    bytes.extend(desk.message(subscriber, 0, b"x", MessageFlags::default()));
    desk.say(subscriber, &bytes);
    assert_eq!(client(&mut desk, subscriber).messages_in, 2);
    assert_eq!(client(&mut desk, held).messages_in, 20);
}

#[test]
fn what_a_client_calls_itself_is_kept_short_and_printable() {
    let mut desk = Desk::new();
    let seat = desk.open();
    let mut hello = Vec::new();
    let name = format!("\u{1b}[2J{}", "x".repeat(10_000));
    FrameEncoder::new().hello(&mut hello, 0, Role::Client, &name, "a\nb");
    desk.say(seat, &hello);
    let found = client(&mut desk, seat);
    assert!(found.name.starts_with("[2Jxx") && found.name.len() == CLIENT_NAME_BYTES_MAX);
    assert_eq!(&*found.software, "ab");
}

#[test]
fn a_client_is_renamed_and_a_stranger_is_not() {
    let mut desk = Desk::new();
    let (seat, silent) = (desk.greet(), desk.open());
    let connection = desk.connection(seat);
    let rename = |client| Request::Rename { client, name: "printer\n".into() };
    assert_eq!(desk.ask(0, rename(connection)), Answer::Done(true));
    assert_eq!(&*client(&mut desk, seat).name, "printer");
    let mut earlier = connection;
    earlier.generation -= 1;
    let unknown = [earlier, desk.connection(silent)];
    for connection in unknown {
        assert_eq!(desk.ask(0, rename(connection)), Answer::Done(false));
        assert_eq!(desk.ask(0, Request::Close(connection)), Answer::Done(false));
    }
    let listed = clients(&mut desk, 0, &Subject::Clients(None), MANY);
    assert_eq!(listed.len(), 1, "whoever has not said Hello is no client");
}

#[test]
fn a_client_that_is_closed_hears_why_and_its_subscriptions_wait_for_it() {
    let mut desk = Desk::new();
    let (seat, publisher) = (desk.greet(), desk.greet());
    let subscription = desk.subscribe(seat, &["t"]);
    desk.heard(seat);
    let connection = desk.connection(seat);
    assert_eq!(desk.ask(0, Request::Close(connection)), Answer::Done(true));
    let last = Heard::Error { code: ErrorCode::LimitReached, fatal: true, offset: 0 };
    assert_eq!(desk.heard(seat), [last]);
    assert_eq!(desk.complaint(seat), "an operator closed the connection");
    assert!(desk.is_closed(seat));
    assert_eq!(desk.ask(0, Request::Close(connection)), Answer::Done(false), "it is gone");
    desk.bind(publisher, 0, "t");
    desk.publish(publisher, 0, b"kept", MessageFlags::default());
    let again = desk.greet();
    desk.resume(again, subscription, 0);
    let heard = desk.heard(again);
    assert!(
        heard
            .iter()
            .any(|heard| matches!(heard, Heard::Message { payload, .. } if payload == b"kept")),
        "{heard:?}"
    );
}

#[test]
fn a_link_is_listed_with_what_waits_for_the_peer_and_how_long_it_takes_there_and_back() {
    let mut pair = Pair::linked(2);
    pair.tell_interest(1, &["t", "u"]);
    let home = nexusd_core::home_of_node(id(1), 2).index();
    let listed = |pair: &mut Pair| {
        let found = links(&mut pair.desks[0], home, &Subject::Links { filters: 1 }, 1);
        let [link] = &found[..] else { panic!("{found:?}") };
        link.clone()
    };
    let link = listed(&mut pair);
    assert_eq!((link.peer, link.is_up, link.filters), (id(1), true, 2));
    assert_eq!(link.named, ["t".into()].into(), "no more are named than asked for");
    assert!(link.hash.is_some() && link.queued_messages == 0);
    // The first heartbeat brings the question, which is under way for a while.
    pair.desks[0].pass(600_000);
    assert_eq!(listed(&mut pair).latency_us, None, "nobody has answered");
    pair.desks[0].pass_unnoticed(1_500);
    pair.carry();
    let latency_us = listed(&mut pair).latency_us.expect("measured");
    assert!((1_500..=600_000).contains(&latency_us), "{latency_us}");
    pair.is_cut = true;
    let publisher = pair.desks[0].greet();
    pair.desks[0].bind(publisher, 0, "t");
    pair.desks[0].publish(publisher, 0, b"x", PLAIN);
    assert_eq!(listed(&mut pair).queued_messages, 1);
}
