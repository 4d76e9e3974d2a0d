#!/bin/sh
# The release of Debian that has a PostgreSQL; 1 where none has it.
#   release-of.sh PG
case $1 in
    15) echo bookworm ;;
    17) echo trixie ;;
    18) echo forky ;;
    *) exit 1 ;;
esac
