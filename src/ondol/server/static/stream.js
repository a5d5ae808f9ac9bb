// Reads server-sent events with fetch, because EventSource cannot send an Authorization header.

const FIRST_WAIT_S = 1;
const LONGEST_WAIT_S = 20;
const SILENCE_S = 40; // The server sends a heartbeat at least every 15 s; longer silence means a dead connection.

/** Splits a stream of text into events; give it chunks, it calls back with each event's name and data. */
export function eventParser(onEvent) {
  let rest = "";
  return (chunk) => {
    rest += chunk;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      let name = "message";
      const data = [];
      for (const line of block.split(/\r?\n/)) {
        if (line.startsWith("event:")) name = line.slice(6).trim();
        else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      }
      if (data.length) onEvent(name, data.join("\n"));
    }
  };
}

/** Keeps a stream open for as long as the page lives. `getKey` returns the API key or null. */
export function connect(url, { getKey, onEvent, onState }) {
  let wake = null;
  let failures = 0;

  async function readOnce() {
    const controller = new AbortController();
    let watchdog;
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => controller.abort(), SILENCE_S * 1000);
    };
    alive();
    try {
      const key = getKey();
      const headers = { Accept: "text/event-stream", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
      const response = await fetch(url, { headers, cache: "no-store", signal: controller.signal });
      if (response.status === 401) return "locked";
      if (!response.ok) return "lost";
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parse = eventParser((name, data) => { failures = 0; onEvent(name, data); });
      onState("open");
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return "lost";
        alive();
        parse(value);
      }
    } catch {
      return "lost";
    } finally {
      clearTimeout(watchdog);
      controller.abort();
    }
  }

  function pause(seconds) {
    return new Promise((resolve) => {
      const timer = seconds === null ? null : setTimeout(resolve, seconds * 1000);
      wake = () => { clearTimeout(timer); resolve(); };
    });
  }

  async function run() {
    for (;;) {
      const end = await readOnce();
      if (end === "locked") {
        onState("locked", { isKeyRefused: Boolean(getKey()) });
        await pause(null);
        continue;
      }
      const wait = Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** failures) * (0.75 + Math.random() / 2);
      failures += 1;
      onState("lost", { waitS: Math.max(1, Math.round(wait)) });
      await pause(wait);
      onState("connecting");
    }
  }

  const retryNow = () => wake?.();
  addEventListener("online", retryNow);
  run();
  return { retryNow };
}
