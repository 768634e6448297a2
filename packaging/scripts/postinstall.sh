#!/bin/sh
# A server that runs is restarted on the new binary; one that does not is left so.
set -e
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl try-restart millrace.service
fi
