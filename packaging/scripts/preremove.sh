#!/bin/sh
# The argument says whether this is a removal (deb: remove, rpm: 0) or an upgrade.
set -e
if [ -d /run/systemd/system ]; then
  case "$1" in
  remove | 0) systemctl disable --now millrace.service ;;
  esac
fi
