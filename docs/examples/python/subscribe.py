#!/usr/bin/env python3
"""Subscribes to a filter of a NexusD daemon and prints each message as `topic sequence payload`."""

import argparse
import sys

from wire import (DELIVER, ERROR, GAP, MESSAGE, SUBSCRIBE, SUBSCRIPTION_INFO, TOPIC_BIND, TOPIC_UNBIND, Connection,
                  Problem, frame, id16, number, run, structs, table, text)

USAGE = "%(prog)s [--unix NAME | HOST:PORT] FILTER [--count N]"
EPILOG = """\
Without --unix and HOST:PORT it tries the unix socket @nexusd/5672, then 127.0.0.1:5672.
Messages go to stdout, gaps and everything else to stderr. Characters of a payload that cannot be printed are
escaped as in Python. Exit codes: 0 after N messages, 1 for an error, 2 for a bad command line.

examples:
  subscribe.py 'plant/#'
  subscribe.py 127.0.0.1:5672 'plant/+/temperature' --count 10
  subscribe.py --unix @nexusd/5672 plant/boiler/temperature"""

REQUEST = 1     # our number for the Subscribe; its answer, SubscriptionInfo or Error, holds it again
GAP_REASONS = {0: "this client reads too slowly", 3: "the daemon's memory limit was reached"}


def arguments():
    parser = argparse.ArgumentParser(usage=USAGE, description=__doc__, epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="[HOST:PORT] FILTER",
                        help="address of the daemon, and what to subscribe to: a topic in which the level + stands "
                             "for any one level and a last level # for all further ones")
    parser.add_argument("--unix", metavar="NAME", help="unix socket of the daemon: @NAME is abstract, else a path")
    parser.add_argument("--count", type=int, metavar="N", help="exit after N messages (default: go on)")
    args = parser.parse_intermixed_args()
    if len(args.words) > (1 if args.unix else 2):
        parser.error("give one FILTER, and before it at most one of --unix NAME and HOST:PORT")
    if args.count is not None and args.count < 1:
        parser.error("--count must be at least 1")
    args.filter = args.words[-1]
    args.address = args.words[0] if len(args.words) == 2 else None
    return args


def printable(payload):
    """A payload is any bytes; this makes one line of text of it."""
    s = payload.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in s)


def report_gap(body, topics):
    """Says what a Gap frame tells: messages of this subscription were lost, here in the stream."""
    reason = GAP_REASONS.get(number(body, 1, "B"), "reason unknown")
    parts = []
    for topic, first, last in structs(body, 3, "I4xQQ"):
        parts.append(f"{topics.get(topic, f'topic id {topic}')} {first} to {last}")
    if number(body, 4, "Q"):
        parts.append(f"{number(body, 4, 'Q')} more")
    print(f"gap: {number(body, 2, 'Q')} messages lost, {reason}: {', '.join(parts)}", file=sys.stderr, flush=True)


def main():
    args = arguments()
    sys.stdout.reconfigure(errors="backslashreplace")
    daemon = Connection(args.unix, args.address, "subscribe.py")

    # Fields of Subscribe, by index: request, filters. Those behind are left out: the daemon's defaults.
    daemon.send(frame(SUBSCRIBE, table(("Q", REQUEST), ("strs", [args.filter]))))

    subscription = None     # its id, once the daemon has confirmed it
    run_of = None           # the subscription that Message frames belong to: that of the last Deliver
    topics = {}             # names by the daemon's topic ids, from TopicBind
    received = 0
    while args.count is None or received < args.count:
        got = daemon.receive()                          # answers pings, and raises Problem for fatal errors
        if got.kind == SUBSCRIPTION_INFO and number(got.body, 0, "Q") == REQUEST:
            subscription = id16(got.body, 1)
            print(f"subscribed to {args.filter} at {daemon.name}", file=sys.stderr, flush=True)
        elif got.kind == ERROR:                         # not fatal: the request it names has failed
            raise Problem(f"The daemon refused: {text(got.body, 1).rstrip('.')}.")
        elif got.kind == TOPIC_BIND:                    # comes before the first message with this id
            topics[got.topic] = text(got.body, 0)
        elif got.kind == TOPIC_UNBIND:
            topics.pop(got.topic, None)
        elif got.kind == DELIVER:                       # opens a run: messages from here on are for this one
            run_of = id16(got.body, 0)
        elif got.kind == MESSAGE and run_of == subscription:
            if got.topic not in topics:
                raise Problem(f"The daemon sent a message of topic id {got.topic} without naming the topic.")
            print(topics[got.topic], got.sequence, printable(got.body), flush=True)
            received += 1
        elif got.kind == GAP and id16(got.body, 0) == subscription:
            report_gap(got.body, topics)
        # Nothing else is of interest here. Kinds newer than version 1.0 cannot come: Hello said 1.0.
    daemon.close()


if __name__ == "__main__":
    run(main)
