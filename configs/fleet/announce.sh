#!/bin/sh
# Has BIRD announce the VIPs for as long as this node is to be sent traffic: `lb health` decides. With --forwarding a daemon that is
# away for a moment (a restart, an upgrade, a crash) withdraws nothing, as packets are forwarded all the same; `lb node drain` does.
#
# Runs for ever, as a service beside BIRD (Restart=always). When it ends, the announcement is withdrawn: nobody would do so later.
set -u

lb=${LB:-/usr/bin/lb}
birdc=${BIRDC:-/usr/sbin/birdc}
every=${EVERY:-0.5}

say() {
    # Said again and again, as BIRD may have been restarted meanwhile.
    $birdc "$1" vips >/dev/null 2>&1
}

trap 'say disable; exit 0' INT TERM
while :; do
    # shellcheck disable=SC2086
    if $lb health --forwarding >/dev/null 2>&1; then
        say enable
    else
        say disable
    fi
    sleep "$every" &
    wait $!
done
