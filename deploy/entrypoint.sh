#!/bin/sh
# The registry runs as 65532, which has no rights. A container that was started as root, since nobody said otherwise,
# first makes that user the owner of its data: a folder of the host, mounted with `-v ./registry-data:/data`, is not.
set -eu
if [ "$(id -u)" -ne 0 ]; then
  exec marina-distribution "$@"
fi
if [ "$(stat -c %u /data)" -ne 65532 ]; then
  chown -R 65532:65532 /data
fi
exec setpriv --reuid=65532 --regid=65532 --clear-groups --no-new-privs marina-distribution "$@"
