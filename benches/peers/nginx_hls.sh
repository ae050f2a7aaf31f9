#!/usr/bin/env bash
# nginx as the peer of `continuo bench hls`: the same playlists and segments, written into a folder as they are made, the
# same players, the same machine. Needs nginx and curl; serves on loopback only and ends by itself.
#   benches/peers/nginx_hls.sh path/to/continuo 1000 20
set -euo pipefail
continuo=$1 players=$2 seconds=$3
export PATH="$PATH:/usr/sbin"
folder=$(mktemp -d)
chmod 755 "$folder"
trap 'kill "${mirror:-}" "${server:-}" "${nginx:-}" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
port=$((20000 + RANDOM % 20000))
"$continuo" serve --port "$port" 2>/dev/null &
server=$!
until curl -sf "http://127.0.0.1:$port/readyz" >/dev/null; do kill -0 "$server"; sleep 0.2; done
curl -sf "http://127.0.0.1:$port/v1/streams" -d '{"prompts": ["lofi piano"], "name": "bench"}' >/dev/null

mkdir "$folder/hls"
"$continuo" bench players "127.0.0.1:$port" /hls/bench/master.m3u8 --save "$folder/hls" --seconds $((seconds + 180)) >/dev/null &
mirror=$!
cat > "$folder/nginx.conf" <<CONF
daemon off;
master_process off;
pid $folder/pid;
error_log $folder/log;
worker_rlimit_nofile 40000;
events { worker_connections 20000; }
http {
  access_log off;
  sendfile on;
  keepalive_requests 1000000;
  client_body_temp_path $folder/body; proxy_temp_path $folder/proxy;
  fastcgi_temp_path $folder/fcgi; uwsgi_temp_path $folder/uwsgi; scgi_temp_path $folder/scgi;
  server { listen 127.0.0.1:$((port + 1)); root $folder/hls; }
}
CONF
ulimit -n 40000 2>/dev/null || true
nginx -p "$folder" -c "$folder/nginx.conf" -e "$folder/log" &
nginx=$!
until curl -sf -o /dev/null "http://127.0.0.1:$((port + 1))/index.m3u8"; do kill -0 "$nginx" "$mirror"; sleep 0.2; done
# As in `bench hls`, five segments are there before the first player comes.
until [ "$(curl -s "http://127.0.0.1:$((port + 1))/index.m3u8" | grep -c '^#EXTINF')" -ge 5 ]; do kill -0 "$nginx" "$mirror"; sleep 0.5; done
"$continuo" bench players "127.0.0.1:$((port + 1))" /index.m3u8 --count "$players" --seconds "$seconds" --pid "$nginx" --json
