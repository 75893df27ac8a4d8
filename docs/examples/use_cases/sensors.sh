#!/usr/bin/env bash
# Sensors and a dashboard: last-known values on every host, with nothing but nexusd-cli.
#
#     sensors.sh [NEXUSD NEXUSD-CLI]
#
# Starts two daemons on free ports of this machine, which stand for two hosts: `plant`, where the sensors are, and
# `office`, where dashboards are looked at. Shows what becomes of values when dashboards come late, a sensor falls
# silent and a host is lost. Exit code 1 and a sentence if something is not as it must be. Takes some seconds.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
built=$here/../../../target/release
nexusd=${1:-$built/nexusd} cli=${2:-$built/nexusd-cli}
seconds=20      # longest wait for anything
unset "${!NEXUSD_@}"    # settings of other daemons
for program in "$nexusd" "$cli"; do
    [[ -x $program ]] || { echo "sensors.sh: no program $program; \`cargo xtask build\`" >&2; exit 1; }
done

started=()      # process ids
stop() {
    for pid in "${started[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
    done
    wait
}
trap stop EXIT
trap 'exit 1' INT TERM

fail() {
    echo "sensors.sh: must be: $*" >&2
    exit 1
}

# Starts a program whose output this shell reads line by line: `start NAME PROGRAM ARGUMENT…`. Its process id is then in
# ${pid[NAME]}, and its output in ${out[NAME]}.
declare -A pid out
start() {
    local name=$1 descriptor
    shift
    exec {descriptor}< <(exec "$@")
    started+=($!)
    pid[$name]=$! out[$name]=$descriptor
}
line_of() {     # the next line of it
    local line
    read -r -t $seconds -u "${out[$1]}" line || fail "$1 prints one more line within $seconds s"
    echo "$line"
}
kill_hard() {   # as a host dies: without a word
    kill -KILL "${pid[$1]}"
    wait "${pid[$1]}" 2>/dev/null || true
}

declare -A app mesh     # addresses, by host
start_host() {
    local name=$1 ready
    shift
    start "$name" "$nexusd" --cluster "sensors-$$" --bind 127.0.0.1 --app-port 0 --unix-socket none \
        --health-port off --metrics-port off --discovery static --log-level off "$@"
    ready=$(line_of "$name")
    app[$name]=$(sed -n 's/.* tcp=\([^ ]*\).*/\1/p' <<<"$ready")
    mesh[$name]=$(sed -n 's/.* mesh=\([^ ]*\).*/\1/p' <<<"$ready")
}

at() {          # `at HOST COMMAND…` asks the daemon of that host
    local host=$1
    shift
    timeout $seconds "$cli" --host "${app[$host]}" "$@"
}
show() {        # the same, and shows the command
    local word line="$1\$ nexusd-cli"
    for word in "${@:2}"; do
        [[ $word =~ ^[a-zA-Z0-9/.-]+$ ]] && line+=" $word" || line+=" '$word'"
    done
    echo "$line"
    at "$@"
}
until_so() {    # `until_so SENTENCE COMMAND…` waits until the command succeeds
    local sentence=$1 end=$((SECONDS + seconds))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "$sentence"
        sleep 0.05  # only so as not to ask all the time
    done
}
must_print() {  # `must_print EXPECTED COMMAND…`, in whatever order the lines are
    local expected=$1 got
    shift
    got=$(show "$@") || fail "\`$*\` succeeds"
    echo "$got"
    [[ $(tail -n +2 <<<"$got" | sort) == $(sort <<<"$expected") ]] || fail "it prints: $expected"
}

linked() { at office --json mesh status | grep -q '"synced": 1'; }
alone() { at office --json mesh status | grep -q '"peers": 0'; }
has_values() { [[ $(at "$1" --json pubsub retained 'plant/#' | grep -c '"topic"') == "$2" ]]; }
wanted_at_plant() { at plant --json pubsub numsub plant/mill/temperature | grep -q '"peers": 1'; }
value_is() { at "$1" --json subscribe "$2" --retained --count 1 | grep -q "\"payload\":\"$3\""; }

echo "# Two hosts find each other"
start_host plant --mesh-port 0
start_host office --mesh-port 0 --peers "${mesh[plant]}"
until_so "the two hosts find each other" linked
show office mesh status | grep -E 'office|Mesh|peers|synced'

echo; echo "# Sensors tell their values, and go to sleep"
show plant publish plant/boiler/temperature 71 --retain
show plant publish plant/mill/temperature 63 --retain
show plant publish plant/mill/pressure 2.4 --retain
# This one says how long its value is worth something: it will tell another before that.
show plant publish plant/pump/temperature 55 --retain --ttl 5s

echo; echo "# A dashboard in the office is opened later: it begins with what is known"
until_so "the office has all four values" has_values office 4
must_print "plant/boiler/temperature #1 (retained): 71
plant/mill/temperature #1 (retained): 63
plant/pump/temperature #1 (retained): 55" office subscribe 'plant/+/temperature' --retained --count 3

echo; echo "# One that stays open goes on with what is new"
start dashboard "$cli" --host "${app[office]}" subscribe 'plant/mill/temperature' --retained
[[ $(line_of dashboard) == "plant/mill/temperature #1 (retained): 63" ]] || fail "the known value comes first"
until_so "the plant learns what is wanted in the office" wanted_at_plant
show plant publish plant/mill/temperature 64 --retain
news=$(line_of dashboard)
echo "dashboard: $news"
[[ $news == "plant/mill/temperature #2: 64" ]] || fail "the dashboard shows it"

echo; echo "# The pump's sensor has fallen silent: its value is gone when its time is over, everywhere"
until_so "the pump's value expires in the office" has_values office 3
until_so "and in the plant" has_values plant 3
show office pubsub retained 'plant/#'

echo; echo "# The plant's host dies: what was known last still is"
kill_hard plant
until_so "the office notices" alone
show office mesh
news=$(line_of dashboard)
echo "dashboard: $news"
[[ $news == "-- lost an unknown number of messages (link_lost)" ]] ||
    fail "the dashboard is told that nobody knows what the plant said last"
must_print "plant/boiler/temperature #1 (retained): 71
plant/mill/temperature #2 (retained): 64" office subscribe 'plant/+/temperature' --retained --count 2

echo; echo "# It is replaced by an empty one, which gets all values from the office"
start_host plant --mesh-port 0 --peers "${mesh[office]}"
until_so "the new host has the three values" has_values plant 3
until_so "the newest of the mill's is among them" value_is plant plant/mill/temperature 64
show plant publish plant/mill/temperature 65 --retain
news=$(line_of dashboard)
echo "dashboard: $news"
[[ $news == "plant/mill/temperature "*": 65" ]] || fail "the dashboard goes on"

echo; echo "# A machine is taken away: so is its value"
show plant publish plant/boiler/temperature '' --retain
until_so "the office forgets the boiler" has_values office 2
show office pubsub retained 'plant/#'
echo; echo "all is as it must be"
