#!/bin/sh
# Makes a database a replica of the primary: a former primary that has come back (started with --read-only=1), too.
#
#   replicate.sh NODE PRIMARY     NODE by its management address, PRIMARY by its address in the database segment
set -eu
mariadb --no-defaults --connect-timeout=2 --user=operator --password=operator --host="$1" --execute="
    set global read_only=1;
    change master to master_host='$2', master_user='repl', master_password='repl', master_connect_retry=1,
        master_use_gtid=slave_pos, master_demote_to_slave=1;
    start slave"
