// A Continuo server and a headless Chromium that talks to it, for measurements in a real page. Needs what
// `scripts/setup test` installs.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const modules = createRequire(new URL("../tests/producers/package.json", import.meta.url));
const WebSocket = modules("ws");

/** hls.js, to be put into a page. */
export const hlsLibrary = () => readFileSync(modules.resolve("hls.js/dist/hls.min.js"), "utf8");

export const sleep = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

/** Asks until there is an answer. */
export async function answer(ask, seconds = 60) {
  for (const end = Date.now() + 1000 * seconds; ; await sleep(0.1)) {
    try {
      const value = await ask();
      if (value) return value;
    } catch (error) {
      if (Date.now() > end) throw error;
    }
    if (Date.now() > end) throw new Error("what is waited for does not come");
  }
}

/** Memory of a process in MB, from Linux's `/proc`. */
export function memory(pid) {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)[1]) / 1000;
}

const children = [];
process.on("exit", () => children.forEach((child) => child.kill()));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

export function run(program, args) {
  const child = spawn(program, args, { stdio: "ignore" });
  child.on("error", (error) => {
    console.error(`${program} does not start: ${error.message}`);
    process.exit(1);
  });
  children.push(child);
  return child;
}

/** Starts `continuo serve` and waits until it is ready. */
export async function serve(continuo, options = []) {
  const port = 20000 + Math.floor(20000 * Math.random());
  const child = run(continuo, ["serve", "--port", String(port), ...options]);
  const url = `http://127.0.0.1:${port}`;
  await answer(async () => (await fetch(`${url}/readyz`)).ok);
  return { url, pid: child.pid };
}

/** How a browser is spoken to, by DevTools or WebDriver BiDi: calls by number, answers in any order. */
export async function connect(address) {
  const socket = new WebSocket(address);
  await new Promise((opened, failed) => socket.on("open", opened).on("error", failed));
  const waiting = new Map();
  socket.on("message", (text) => {
    const { id, result, error, message } = JSON.parse(text);
    waiting.get(id)?.(result ?? { error, message });
    waiting.delete(id);
  });
  let last = 0;
  return (method, params = {}) =>
    new Promise((done) => {
      waiting.set((last += 1), done);
      socket.send(JSON.stringify({ id: last, method, params }));
    });
}

/** Opens a page; `first` is run in it before its own scripts. */
export async function open(url, first = "") {
  const profile = mkdtempSync(join(tmpdir(), "continuo-chromium-"));
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"];
  flags.push("--disable-background-networking", "--autoplay-policy=no-user-gesture-required");
  const browser = run("chromium", [...flags, "--remote-debugging-port=0", `--user-data-dir=${profile}`, "about:blank"]);
  process.on("exit", () => {
    try {
      rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
    } catch {
      // A process of the browser still writes there; the system clears its own folder.
    }
  });
  const port = await answer(() => readFileSync(join(profile, "DevToolsActivePort"), "utf8").split("\n")[0]);
  const targets = await answer(async () => (await fetch(`http://127.0.0.1:${port}/json`)).json());
  const call = await connect(targets.find(({ type }) => type === "page").webSocketDebuggerUrl);
  const page = {
    pid: browser.pid,
    profile,
    call,
    async eval(expression) {
      const answer = await call("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
      if (answer.exceptionDetails) throw new Error(`${expression}: ${JSON.stringify(answer.exceptionDetails)}`);
      return answer.result.value;
    },
    until: (expression, seconds) => answer(() => page.eval(expression), seconds),
  };
  for (const domain of ["Page", "Runtime", "Performance"]) await call(`${domain}.enable`);
  await call("Page.setBypassCSP", { enabled: true });
  await call("Page.addScriptToEvaluateOnNewDocument", { source: first });
  await call("Page.navigate", { url });
  await page.until("document.readyState === 'complete'");
  return page;
}

/** The `share` quantile. */
export function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.round((sorted.length - 1) * share)];
}
