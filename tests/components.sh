#!/bin/sh
# Puts in place what the tests start beside Python packages: Prometheus with promtool, Alertmanager with amtool, of Debian.
# Does nothing where they are there. Otherwise it needs root, and says so.
set -eu

programs="prometheus promtool prometheus-alertmanager amtool"
missing=""
for program in $programs; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "missing:$missing. The tests need them: as root, apt-get install prometheus prometheus-alertmanager" >&2
    exit 1
fi

# The packages would start their daemons, on ports that nobody asked for.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends prometheus prometheus-alertmanager >/dev/null
