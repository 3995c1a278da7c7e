#!/bin/sh
# Makes a replica the database that can be written.
#
#   promote.sh NEW OLD     management addresses of the replica and of the primary so far
#
# Run it when the primary is dead (or to move on purpose). First it makes sure that the old primary cannot be
# written any more: if it still answers, it is set read-only, and the replica catches up. If it does not answer, see that
# it stays away (power it off): lb would find it writable again if it came back as it was. Start it with
# --read-only=1 and run replicate.sh. lb finds the new primary by its check.
set -eu
new=$1 old=$2
sql() { mariadb --no-defaults --connect-timeout=2 --user=operator --password=operator --batch --host="$1" --execute="$2"; }
value() { sql "$1" "select $2" | tail -n 1; }

if sql "$old" 'set global read_only=1' 2>/dev/null; then
    position=$(value "$old" @@gtid_binlog_pos)
    echo "$old is read-only at $position"
    [ "$(value "$new" "master_gtid_wait('$position', 10)")" = 0 ] || { echo "$new does not catch up" >&2; exit 1; }
else
    echo "$old does not answer"
fi
# What has arrived is applied before anybody writes.
sql "$new" 'stop slave io_thread'
received=$(sql "$new" 'show slave status\G' | sed -n 's/^ *Gtid_IO_Pos: //p')
[ -z "$received" ] || [ "$(value "$new" "master_gtid_wait('$received', 10)")" = 0 ] || { echo "$new does not finish what it has received" >&2; exit 1; }
sql "$new" 'stop slave; reset slave all; set global read_only=0'
echo "$new is the primary"
