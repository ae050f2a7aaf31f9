#!/usr/bin/env bash
# Icecast as the peer of `continuo bench fanout`, and one that relays from another as the peer of the edges of
# `continuo bench cluster`: the same Ogg Opus bit rate, the same listeners, the same machine.
# Needs the packages icecast2 and ffmpeg; serves on loopback only and ends by itself.
#   benches/peers/icecast.sh path/to/continuo 1000 20 [relay]
set -euo pipefail
continuo=$1 listeners=$2 seconds=$3 relay=${4:-}
folder=$(mktemp -d)
chmod 755 "$folder"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
port=$((20000 + RANDOM % 20000))
serve() { # NAME PORT MORE; the process is $server
  mkdir "$folder/$1"
  cat > "$folder/$1/icecast.xml" <<XML
<icecast>
  <limits><clients>20000</clients><sources>2</sources><queue-size>524288</queue-size><burst-size>24000</burst-size></limits>
  <authentication><source-password>bench</source-password><relay-password>bench</relay-password>
    <admin-user>a</admin-user><admin-password>bench</admin-password></authentication>
  <listen-socket><port>$2</port><bind-address>127.0.0.1</bind-address></listen-socket>
  $3
  <paths><logdir>$folder/$1</logdir><webroot>/usr/share/icecast2/web</webroot><adminroot>/usr/share/icecast2/admin</adminroot></paths>
  <logging><accesslog>access.log</accesslog><errorlog>error.log</errorlog><loglevel>2</loglevel></logging>
  <security><chroot>0</chroot><changeowner><user>nobody</user><group>nogroup</group></changeowner></security>
</icecast>
XML
  chown -R nobody "$folder"
  icecast2 -c "$folder/$1/icecast.xml" >/dev/null 2>&1 &
  server=$!
  until curl -s -o /dev/null "http://127.0.0.1:$2/"; do kill -0 "$server"; sleep 0.1; done
}
plays() { curl -s -m 1 -o /dev/null -f -r 0-1 "http://127.0.0.1:$1/live" || [ $? = 28 ]; }
ulimit -n 40000 2>/dev/null || true
serve origin "$port" ""
ffmpeg -nostdin -loglevel error -re -f lavfi -i "sine=frequency=330:sample_rate=48000" -c:a libopus -b:a 96k -vbr on -page_duration 200000 \
  -f ogg -content_type audio/ogg "icecast://source:bench@127.0.0.1:$port/live" &
source=$!
until plays "$port"; do kill -0 "$source"; sleep 0.2; done
if [ -n "$relay" ]; then
  serve relay "$((port + 1))" "<relay><server>127.0.0.1</server><port>$port</port><mount>/live</mount>
    <local-mount>/live</local-mount><on-demand>0</on-demand></relay>"
  port=$((port + 1))
  until plays "$port"; do kill -0 "$server"; sleep 0.2; done
fi
"$continuo" bench listeners "127.0.0.1:$port" /live --count "$listeners" --seconds "$seconds" --pid "$server" --json
