// 24: the server is started again under a client, twice: at rest and in mid-generation. Says when it is to happen.
//   node restart.mjs URL VERSION(4|2)
import assert from 'node:assert/strict';
import { ask, connected, library, listener } from './client.mjs';
import { look, wav } from './sound.mjs';

const [url, version] = process.argv.slice(2);
const socket = library(version)(url, { transports: ['websocket'], reconnectionDelay: 100, reconnectionDelayMax: 200 });
await connected(socket);
const client = listener(socket);
const audio = wav(8).toString('base64');
const restarted = () => new Promise((resolve) => {
 socket.once('disconnect', () => {
  // A server that says goodbye is called again by hand, as the device does.
  if (!socket.active) setTimeout(() => socket.connect(), 100);
  socket.once('connect', resolve);
 });
 console.log('restart');
});

const first = await ask(client, socket, 'continue_music_request',
 { audio_data: audio, model_name: 'standin', prompt_duration: 6 }, 'music_continued');
const session_id = first.session_id;

await restarted();
socket.emit('verify_session', { session_id });
const retried = await ask(client, socket, 'retry_music_request', { session_id, model_name: 'standin', prompt_duration: 6 }, 'music_retried');
assert.equal(look(retried.audio_data).frames, look(first.audio_data).frames);
const undone = await ask(client, socket, 'undo_transform_request', { session_id }, 'transform_undone');
assert.equal(undone.audio_data, audio);

await ask(client, socket, 'continue_music_request', { session_id, prompt_duration: 6 }, 'continue_music_received');
const result = client.next('music_continued');
await restarted();
socket.emit('verify_session', { session_id });
assert.equal(look((await result).audio_data).frames, look(first.audio_data).frames);

console.log('all of it');
process.exit(0);
