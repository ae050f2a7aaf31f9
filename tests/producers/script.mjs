// The table of what the Ableton device sends and needs back, driven with a real client library.
//   node script.mjs URL VERSION(4|2) TRANSPORT(websocket|polling|both) URL_OF_A_SERVER_WITHOUT_MODELS
import assert from 'node:assert/strict';
import { ask, connected, library, listener } from './client.mjs';
import { look, wav } from './sound.mjs';

const [url, version, transport, bareUrl] = process.argv.slice(2);
const io = library(version);
const transports = transport === 'both' ? ['polling', 'websocket'] : [transport];
const connect = (to = url) => io(to, { transports, forceNew: true, reconnection: false });

const socket = connect();
await connected(socket);
const client = listener(socket);
const input = wav(8, 44100, 1), audio = input.toString('base64');
const model = 'standin';
// What is transformed: the model works on every second of it.
const brief = wav(3).toString('base64');

// 4: bang. 7, 8: what comes meanwhile.
let began = client.seen.length;
const bang = await ask(client, socket, 'process_audio_request',
 { audio_data: audio, model_name: model, prompt_duration: 6, session_id: 'ignored' }, 'audio_processed');
const first = look(bang.audio_data);
assert.deepEqual([first.frames, first.rate, first.channels, first.bits], [30 * 44100, 44100, 1, 16]);
const run = client.seen.slice(began);
const order = [...new Set(run.map((event) => event.name))];
assert.equal(order[0], 'process_audio_received');
assert.equal(order.at(-1), 'audio_processed');
assert.deepEqual(new Set(run.map((event) => event.data.session_id)), new Set([bang.session_id]));
const queue = run.filter((event) => event.name === 'queue_status');
assert.ok(queue.some((event) => event.data.status === 'ready'));
for (const { data } of queue) {
 for (const field of ['message', 'position', 'total_queued', 'estimated_seconds']) assert.notEqual(data[field], undefined);
}
const progress = run.filter((event) => event.name === 'progress_update').map((event) => event.data.progress);
assert.ok(progress.length > 0 && progress.every((percent) => percent > 0 && percent < 100), String(progress));
assert.ok(progress.includes(99), 'the last progress is never dropped');
const session = bang.session_id;

// 14: nothing to retry yet. 9: no error.
const refused = await ask(client, socket, 'retry_music_request',
 { session_id: session, model_name: model, prompt_duration: 6 }, 'error');
assert.equal(refused.message, 'No last input audio available for retry');
assert.equal(refused.session_id, session);
socket.emit('request_progress_status', { session_id: session, last_progress: 0 });
socket.emit('verify_session', { session_id: session });

// 10 and 11: continue, with the whole sound, as JSON text.
const longer = await ask(client, socket, 'continue_music_request', JSON.stringify({
 audio_data: bang.audio_data, session_id: session, model_name: model, prompt_duration: 6,
 top_k: 150, cfg_coef: 5, description: 'drums, "percussion"' }), 'music_continued');
const second = look(longer.audio_data);
assert.deepEqual([second.frames, second.channels], [54 * 44100, 2]);
assert.deepEqual(second.left(0, 24 * 44100), first.left(0, 24 * 44100));

// 13: retry: the same head, another tail.
const retried = await ask(client, socket, 'retry_music_request',
 { session_id: session, model_name: model, prompt_duration: 6 }, 'music_retried');
const third = look(retried.audio_data);
assert.equal(third.frames, second.frames);
assert.deepEqual(third.left(0, 24 * 44100), first.left(0, 24 * 44100));
assert.notDeepEqual(third.left(40 * 44100, 50 * 44100), second.left(40 * 44100, 50 * 44100));

// 17: undo gives the bytes of the input, again and again, also to JSON text with too many backslashes.
for (const payload of [{ session_id: session }, `{\\"session_id\\":\\"${session}\\"}`]) {
 const undone = await ask(client, socket, 'undo_transform_request', payload, 'transform_undone');
 assert.equal(undone.audio_data, bang.audio_data);
}

// 16: transform, without a session: every step is told, then all of it, then the sound.
began = client.seen.length;
const transformed = await ask(client, socket, 'transform_audio_request',
 { audio_data: brief, variation: 'strings_quartet', session_id: null, flowstep: 0.13 }, 'audio_transformed');
const other = look(transformed.audio_data);
assert.deepEqual([other.frames, other.channels, other.rate, transformed.variation], [3 * 44100, 2, 44100, 'strings_quartet']);
const steps = client.seen.slice(began);
assert.equal(steps[0].name, 'transform_audio_received');
assert.equal(steps.at(-1).name, 'audio_transformed');
assert.deepEqual(new Set(steps.map((event) => event.data.session_id)), new Set([transformed.session_id]));
assert.ok(steps.some((event) => event.name === 'queue_status' && event.data.status === 'warming'));
const told = steps.filter((event) => event.name === 'progress_update').map((event) => event.data.progress);
assert.equal(told.at(-1), 100);
assert.equal((told.length - 1) % 75, 0, `${told.length} steps are told`);
assert.ok(told.every((percent, index) => percent >= (told[index - 1] ?? 1)), String(told));
// Again as JSON text, with the other solver, from the sound that the session has; a second one meanwhile is refused.
const slower = { session_id: transformed.session_id, variation: 'celtic', solver: 'MIDPOINT', flowstep: '0.08' };
began = client.seen.length;
const both = client.next('error');
await ask(client, socket, 'transform_audio_request', JSON.stringify(slower), 'transform_audio_received');
socket.emit('transform_audio_request', slower);
assert.equal((await both).message, 'Transform already in progress');
const twice = await client.next('audio_transformed');
const slowSteps = client.seen.slice(began).filter((event) => event.name === 'progress_update');
assert.equal((slowSteps.length - 1) % 128, 0, `${slowSteps.length} steps are told`);
// 17 after 16: the bytes of what was transformed; 13 after 16 goes on from before the transform.
const before = await ask(client, socket, 'undo_transform_request', { session_id: transformed.session_id }, 'transform_undone');
assert.equal(before.audio_data, transformed.audio_data);
assert.notEqual(twice.audio_data, transformed.audio_data);
const after = await ask(client, socket, 'retry_music_request',
 { session_id: transformed.session_id, model_name: model, prompt_duration: 1 }, 'music_retried');
assert.deepEqual(look(after.audio_data).left(0, 2 * 44100), other.left(0, 2 * 44100));

// 20: the other half is down.
const bareSocket = connect(bareUrl);
await new Promise((resolve) => bareSocket.on('connect', resolve));
const bare = listener(bareSocket);
const down = await ask(bare, bareSocket, 'transform_audio_request',
 { audio_data: audio, variation: 'celtic', session_id: null, flowstep: 0.13 }, 'error');
assert.match(down.message, /Connection refused.*--transform-model/);
bareSocket.disconnect();

// 15: crop, with and without a session.
const cropped = await ask(client, socket, 'update_cropped_audio',
 { session_id: session, audio_data: wav(7).toString('base64') }, 'update_cropped_audio_complete');
assert.deepEqual([cropped.session_id, cropped.auto_created], [session, false]);
const made = await ask(client, socket, 'update_cropped_audio',
 { session_id: null, audio_data: audio }, 'update_cropped_audio_complete');
assert.ok(made.auto_created && made.session_id && made.session_id !== session);

// 12: continue without a session; 19: a second one while it runs.
const result = client.next('music_continued', 'error');
const { session_id: created } = await ask(client, socket, 'continue_music_request',
 { audio_data: audio, model_name: model, prompt_duration: 3 }, 'continue_music_received');
socket.emit('continue_music_request', { session_id: created });
const busy = await result;
assert.equal(busy.message, 'Generation already in progress');
const auto = await client.next('music_continued');
assert.equal(auto.session_id, created);
assert.equal(look(auto.audio_data).frames, (8 - 3 + 30) * 44100);

// Restoring in one message, and in pieces: out of order, with a gap, one of them twice.
const restored = await ask(client, socket, 'restore_processed_audio',
 { audio_data: audio, model_name: model, prompt_duration: 6 }, 'restore_complete');
assert.equal(restored.data_size, input.length);
const ready = await ask(client, socket, 'begin_restore_audio', {}, 'ready_for_chunks');
assert.equal(ready.chunk_size, 8388608);
const size = Math.ceil(audio.length / 4);
const piece = (index, last = false) => ({
 session_id: ready.session_id, chunk: audio.slice(index * size, (index + 1) * size), chunk_index: index,
 total_chunks: 4, is_last: last, ...(last ? { model_name: model, prompt_duration: 6 } : {}) });
for (const index of [2, 0, 0]) await ask(client, socket, 'audio_chunk', piece(index), 'chunk_received');
const gap = await ask(client, socket, 'audio_chunk', piece(3, true), 'chunks_missing');
assert.deepEqual(gap.missing_chunks, [1]);
await ask(client, socket, 'audio_chunk', { ...piece(1, true) }, 'restore_complete');
const again = await ask(client, socket, 'continue_music_request', { session_id: ready.session_id }, 'music_continued');
assert.equal(look(again.audio_data).frames, (8 - 6 + 30) * 44100);

// 64 MB of base64 there and back.
const big = wav(285, 44100, 2);
assert.ok(big.length * 4 / 3 > 64e6);
const huge = await ask(client, socket, 'restore_processed_audio',
 { audio_data: big.toString('base64'), model_name: model, prompt_duration: 6 }, 'restore_complete');
assert.equal(huge.data_size, big.length);
const back = await ask(client, socket, 'continue_music_request', { session_id: huge.session_id }, 'music_continued');
assert.equal(look(back.audio_data).frames, (285 - 6 + 30) * 44100);

// 21: every mistake gets a message, and leaves the connection as it was.
for (const [event, payload] of [
 ['process_audio_request', { audio_data: '!!!=', model_name: model, prompt_duration: 6 }],
 ['process_audio_request', { audio_data: Buffer.from('no music').toString('base64'), model_name: model, prompt_duration: 6 }],
 ['process_audio_request', { audio_data: audio, model_name: model, prompt_duration: 30 }],
 ['process_audio_request', { audio_data: audio, model_name: model, prompt_duration: 6.5 }],
 ['process_audio_request', { model_name: model, prompt_duration: 6 }],
 ['process_audio_request', '{'],
 ['process_audio_request', 5],
 ['process_audio_request', { audio_data: audio, model_name: 'nobody/has-it', prompt_duration: 6 }],
 ['continue_music_request', {}],
 ['continue_music_request', { session_id: 'nobody' }],
 ['continue_music_request', { session_id: '../../etc' }],
 ['retry_music_request', {}],
 ['retry_music_request', { session_id: 'nobody' }],
 ['undo_transform_request', { session_id: made.session_id }],
 ['transform_audio_request', {}],
 ['transform_audio_request', '{'],
 ['transform_audio_request', { variation: 'celtic' }],
 ['transform_audio_request', { variation: 'celtic', session_id: 'nobody' }],
 ['transform_audio_request', { variation: 'kazoo', audio_data: audio }],
 ['transform_audio_request', { variation: 'celtic', audio_data: '!!!=' }],
 ['transform_audio_request', { variation: 'celtic', audio_data: audio, flowstep: 0 }],
 ['transform_audio_request', { variation: 'celtic', audio_data: audio, flowstep: 1 }],
 ['transform_audio_request', { variation: 'celtic', audio_data: audio, solver: 'rk4' }],
 ['update_cropped_audio', { session_id: session }],
 ['restore_processed_audio', { audio_data: audio }],
 ['audio_chunk', { session_id: ready.session_id }],
 ['cleanup_session_request', {}],
]) {
 const { message } = await ask(client, socket, event, payload, 'error');
 assert.ok(typeof message === 'string' && message.length > 5, `${event}: ${message}`);
}

// An acknowledgement is given to those who ask.
await new Promise((resolve) => socket.emit('verify_session', { session_id: session }, resolve));

// Two clients in one session both hear of it.
const friend = connect();
await new Promise((resolve) => friend.on('connect', resolve));
const otherClient = listener(friend);
await new Promise((resolve) => friend.emit('verify_session', { session_id: session }, resolve));
const heard = Promise.all([client.next('music_continued'), otherClient.next('music_continued')]);
socket.emit('continue_music_request', { session_id: session });
const [one, two] = await heard;
assert.equal(one.audio_data, two.audio_data);

// A client that leaves in mid-generation finds the result when it is back, once.
friend.emit('cleanup_session_request', { session_id: session });
await otherClient.next('cleanup_complete');
await ask(client, socket, 'continue_music_request', { session_id: made.session_id }, 'continue_music_received');
socket.disconnect();
for (;;) {
 const shown = await (await fetch(`${url}/v1/sessions/${made.session_id}`)).json();
 if (shown.making === null) break;
 await new Promise((resolve) => setTimeout(resolve, 50));
}
const returned = connect();
await new Promise((resolve) => returned.on('connect', resolve));
const returnedClient = listener(returned);
const missed = await ask(returnedClient, returned, 'verify_session', { session_id: made.session_id }, 'music_continued');
assert.equal(look(missed.audio_data).frames, (8 - 6 + 30) * 44100);
returnedClient.seen.length = 0;
await new Promise((resolve) => returned.emit('verify_session', { session_id: made.session_id }, resolve));
assert.deepEqual(returnedClient.seen, []);

// 6, 18: reset. What it began is given up when nobody else is there.
await ask(returnedClient, returned, 'continue_music_request', { session_id: made.session_id }, 'continue_music_received');
const { making: begun } = await (await fetch(`${url}/v1/sessions/${made.session_id}`)).json();
await ask(returnedClient, returned, 'cleanup_session_request', { session_id: made.session_id }, 'cleanup_complete');
for (;;) {
 const { status } = await (await fetch(`${url}/v1/clips/${begun}`)).json();
 if (status === 'cancelled') break;
 assert.ok(['queued', 'starting', 'running'].includes(status), status);
 await new Promise((resolve) => setTimeout(resolve, 20));
}

returned.disconnect();
friend.disconnect();
console.log('all of it');
process.exit(0);
