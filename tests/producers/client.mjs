// A client library of either age, and a listener that remembers every event and lets one wait for the next of a name.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const NAMES = ['process_audio_received', 'continue_music_received', 'retry_music_received',
 'transform_audio_received', 'audio_transformed', 'queue_status',
 'progress_update', 'audio_processed', 'music_continued', 'music_retried', 'transform_undone',
 'update_cropped_audio_complete', 'cleanup_complete', 'ready_for_chunks', 'chunk_received', 'chunks_missing',
 'restore_complete', 'error'];

export const library = (version) => require(version === '2' ? 'socket.io-client-2' : 'socket.io-client');

export function listener(socket) {
 const seen = [], waiting = [];
 for (const name of NAMES) {
  socket.on(name, (data) => {
   const index = waiting.findIndex((one) => one.names.includes(name));
   seen.push({ name, data });
   if (index >= 0) waiting.splice(index, 1)[0].resolve({ name, data });
  });
 }
 return {
  seen,
  // The next event of one of these names; an error that is not asked for ends the script.
  next: (...names) => new Promise((resolve, reject) => {
   const wanted = names.includes('error') ? names : [...names, 'error'];
   waiting.push({ names: wanted, resolve: (event) =>
    names.includes(event.name) ? resolve(event.data) : reject(new Error(`error event: ${event.data.message}`)) });
  }),
 };
}

export const ask = (client, socket, event, data, reply) => {
 const answer = client.next(reply);
 socket.emit(event, data);
 return answer;
};

export const connected = (socket) =>
 new Promise((resolve, reject) => { socket.on('connect', resolve); socket.on('connect_error', reject); });
