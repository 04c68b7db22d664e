#!/bin/sh
# Makes sure that Debian packages are there: installs them where that works without asking,
# and says what to type where it does not.
set -eu

missing=
for package in "$@"; do
    case "$package" in
        mosquitto) command -v mosquitto >/dev/null 2>&1 || [ -x /usr/sbin/mosquitto ] && continue ;;
        mosquitto-clients) command -v mosquitto_sub >/dev/null 2>&1 && continue ;;
        npm) command -v npm >/dev/null 2>&1 && continue ;;
        *) dpkg -s "$package" >/dev/null 2>&1 && continue ;;
    esac
    missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if command -v apt-get >/dev/null 2>&1; then
    sudo=
    [ "$(id -u)" = 0 ] || sudo="sudo -n"
    if [ -z "$sudo" ] || $sudo true 2>/dev/null; then
        echo "installing$missing"
        # A freshly installed broker or database must not be started as a system service.
        log=$(mktemp)
        if { $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
                apt-get install -y --no-install-recommends $missing ||
             { $sudo apt-get update &&
               $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
                apt-get install -y --no-install-recommends $missing; }; } >"$log" 2>&1; then
            rm -f "$log"
            exit 0
        fi
        tail -n 5 "$log" >&2
        rm -f "$log"
    fi
    echo "error: these packages are missing:$missing" >&2
    echo "hint: sudo apt-get install$missing" >&2
else
    echo "error: these packages are missing:$missing" >&2
    echo "hint: install them with this system's package manager (the broker is Eclipse Mosquitto)" >&2
fi
exit 1
