"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const make = (tag, text, attributes = {}) => {
  const node = document.createElement(tag);
  if (text !== "") node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};
const bytes = text => { const raw = atob(text); const out = new Uint8Array(raw.length); for (let i = 0;
  i < raw.length; i++) out[i] = raw.charCodeAt(i); return out; };
const clockText = t => `${Math.floor(t / 60)}:${(t % 60).toFixed(1).padStart(4, "0")}`;
const pitchName = p => ["C", "C\u266f", "D", "D\u266f", "E", "F", "F\u266f", "G", "G\u266f", "A", "A\u266f",
  "B"][p % 12] + (Math.floor(p / 12) - 1);

let loudest = 255, item, tracks = [], context = null, master = null, playing = false, startedAt = 0, offset = 0,
  loading = 0;

// --- sound: every track is decoded whole, and all are started at one time of one clock, so they cannot drift apart
const position = () => Math.min(item.seconds, playing ? Math.max(offset,
  offset + context.currentTime - startedAt) : offset);
function level(track) {
  const solo = tracks.some(t => t.solo);
  return (solo ? track.solo : !track.mute) ? track.volume : 0;
}
function applyLevels() {
  for (const track of tracks) {
    if (track.gain) track.gain.gain.setTargetAtTime(level(track), context.currentTime, 0.01);
    track.row.classList.toggle("quiet", level(track) === 0);
    track.soloButton.setAttribute("aria-pressed", track.solo);
    track.muteButton.setAttribute("aria-pressed", track.mute);
  }
}
async function load() {
  const mine = ++loading;
  $("play").disabled = true; $("play").textContent = "Loading"; $("status").textContent = "";
  try {
    if (!context) {
      context = new AudioContext({sampleRate: data.sampleRate});
      master = context.createGain(); master.connect(context.destination);
    }
    for (const track of tracks) {
      const encoded = bytes($(track.audio).textContent.trim());
      const buffer = await context.decodeAudioData(encoded.buffer);
      if (mine !== loading) return;
      track.buffer = buffer; track.gain = context.createGain(); track.gain.gain.value = level(track);
        track.gain.connect(master);
    }
    $("play").disabled = false; $("play").textContent = "Play";
  } catch (error) { $("play").textContent = "No sound";
    $("status").textContent = "This browser cannot decode the sound: " + error.message; }
}
function start() {
  if (offset >= item.seconds - 0.01) offset = 0;
  context.resume();
  startedAt = context.currentTime + 0.06;
  for (const track of tracks) {
    track.node = context.createBufferSource(); track.node.buffer = track.buffer; track.node.connect(track.gain);
    if (offset < track.buffer.duration) track.node.start(startedAt, offset);
  }
  playing = true; $("play").textContent = "Stop"; requestAnimationFrame(tick);
}
function stop() {
  offset = position(); playing = false; $("play").textContent = "Play";
  for (const track of tracks) if (track.node) { try { track.node.stop();
    } catch (error) { /* was never started */ } track.node.disconnect(); track.node = null; }
}
function seek(time) {
  const again = playing; if (again) stop();
  offset = Math.max(0, Math.min(item.seconds, time));
  if (again) start();
  draw();
}
function tick() {
  if (!playing) return;
  if (position() >= item.seconds) { stop(); offset = 0; }
  draw(); if (playing) requestAnimationFrame(tick);
}

// --- pictures
const span = () => {
  const width = Number($("zoom").value); if (!width || width >= item.seconds) return [0, item.seconds];
  const from = Math.max(0, Math.min(item.seconds - width, position() - width / 4)); return [from, from + width];
};
function prepare(canvas) {
  const scale = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  const width = Math.max(1, Math.round(box.width * scale)), height = Math.max(1, Math.round(box.height * scale));
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const pen = canvas.getContext("2d"); pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, box.width, box.height);
  return [pen, box.width, box.height];
}
let colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "soft", "line", "true", "true-edge", "found", "wrong", "wave",
    "paper"]) colours[name] = style.getPropertyValue("--" + name).trim();
}
function playhead(pen, x, height) { pen.fillStyle = colours.ink; pen.fillRect(Math.round(x) - 1, 0, 2, height); }
function drawWave(track, from, to) {
  const [pen, width, height] = prepare(track.canvas), peaks = track.peaks;
  pen.fillStyle = colours.wave;
  for (let x = 0; x < width; x++) {
    const first = Math.floor((from + (to - from) * x / width) * data.peakRate), last = Math.max(first + 1,
      Math.floor((from + (to - from) * (x + 1) / width) * data.peakRate));
    let peak = 0; for (let k = first; k < last && k < peaks.length; k++) peak = Math.max(peak, peaks[k]);
    const size = Math.max(1, peak / loudest * height); pen.fillRect(x, (height - size) / 2, 1, size);
  }
  playhead(pen, (position() - from) / (to - from) * width, height);
}
const GUTTER = 38;
function drawRoll(from, to) {
  if (!item.notes.length) return;
  const [pen, width, height] = prepare($("roll")), shown = $("instrument").value;
  const notes = item.notes.filter(n => (shown === "all" || n.who === Number(shown)));
  const pitches = notes.map(n => n.pitch), low = Math.min(...pitches, 127) - 2, high = Math.max(...pitches, 0) + 2;
  const step = height / Math.max(1, high - low + 1), x = t => GUTTER + (t - from) / (to - from) * (width - GUTTER),
    y = p => (high - p) * step;
  pen.font = "12px system-ui, sans-serif"; pen.textBaseline = "middle";
  for (let p = low; p <= high; p++) if (p % 12 === 0) { pen.fillStyle = colours.line;
    pen.fillRect(GUTTER, y(p) + step, width, 1); pen.fillStyle = colours.soft;
    pen.fillText(pitchName(p), 2, y(p) + step / 2); }
  pen.save(); pen.beginPath(); pen.rect(GUTTER, 0, width, height); pen.clip();
  const inView = notes.filter(n => n.off >= from && n.on <= to);
  for (const n of inView.filter(n => n.side === "true")) {
    const w = Math.max(2, x(n.off) - x(n.on)); pen.fillStyle = colours.true;
      pen.fillRect(x(n.on), y(n.pitch) + 0.5, w, step - 1);
    pen.strokeStyle = colours["true-edge"]; pen.lineWidth = 0.7; pen.strokeRect(x(n.on), y(n.pitch) + 0.5, w,
      step - 1);
  }
  for (const n of inView.filter(n => n.side === "heard")) {
    const left = x(n.on), w = Math.max(2, x(n.off) - left), top = y(n.pitch) + step * 0.22, h = Math.max(2,
      step * 0.56);
    if (n.ok) { pen.fillStyle = colours.found; pen.fillRect(left, top, w, h); continue; }
    pen.strokeStyle = colours.wrong; pen.lineWidth = 1.2; pen.strokeRect(left, top, w, h);
    pen.save(); pen.beginPath(); pen.rect(left, top, w, h); pen.clip(); pen.beginPath();
    for (let k = left - h; k < left + w; k += 4) { pen.moveTo(k, top + h); pen.lineTo(k + h, top); } pen.stroke();
      pen.restore();
    const c = y(n.pitch) + step / 2; pen.beginPath(); pen.moveTo(left - 3, c - 3); pen.lineTo(left + 3, c + 3);
      pen.moveTo(left + 3, c - 3); pen.lineTo(left - 3, c + 3); pen.stroke();
  }
  for (const n of inView.filter(n => n.side === "true" && !n.ok)) {
    pen.beginPath(); pen.arc(x(n.on), y(n.pitch) + step / 2, 4, 0, 2 * Math.PI); pen.fillStyle = colours.paper;
      pen.fill(); pen.strokeStyle = colours.ink; pen.lineWidth = 1.5; pen.stroke();
  }
  playhead(pen, x(position()), height); pen.restore();
}
function draw() {
  const [from, to] = span();
  for (const track of tracks) drawWave(track, from, to);
  drawRoll(from, to);
  $("seek").value = position(); $("seek").setAttribute("aria-valuetext", clockText(position()));
  $("clock").textContent = `${clockText(position())} / ${clockText(item.seconds)}`;
}

// --- the page
function buildTracks() {
  $("tracks").replaceChildren();
  tracks = item.tracks.map((track, number) => ({...track, peaks: bytes(track.peaks), number, solo: false,
    mute: number > 0, volume: 1}));
  loudest = tracks.reduce((most, track) => track.peaks.reduce((a, b) => Math.max(a, b), most), 8);
  for (const track of tracks) {
    const name = `${track.name}, ${track.kind}`;
    track.row = make("div", "", {class: "track", role: "group", "aria-label": name});
    const label = make("span", track.name, {class: "name"}); label.append(make("span", track.kind, {class: "kind"}));
    track.soloButton = make("button", "Solo", {type: "button", "aria-pressed": "false",
      "aria-label": `Solo ${name}`});
    track.muteButton = make("button", "Mute", {type: "button", "aria-pressed": "false",
      "aria-label": `Mute ${name}`});
    track.soloButton.onclick = () => { track.solo = !track.solo; applyLevels(); };
    track.muteButton.onclick = () => { track.mute = !track.mute; applyLevels(); };
    const slider = make("input", "", {type: "range", min: 0, max: 1.5, step: 0.01, value: 1,
      "aria-label": `Volume of ${name}`});
    slider.oninput = () => { track.volume = Number(slider.value); applyLevels(); };
    const holder = make("label", ""); holder.append(slider);
    track.canvas = make("canvas", "", {role: "img", "aria-label": `Waveform of ${name}; click to go there`});
    track.canvas.onclick = event => { const box = track.canvas.getBoundingClientRect(), [from, to] = span();
      seek(from + (event.clientX - box.left) / box.width * (to - from)); };
    track.row.append(label, track.soloButton, track.muteButton, holder, track.canvas);
    $("tracks").append(track.row);
  }
  applyLevels();
}
function buildNotes() {
  $("notes").hidden = !item.notes.length; $("mistakes").hidden = !item.judged;
  $("instrument").replaceChildren(make("option", "all", {value: "all"}), ...item.instruments.map((name,
    k) => make("option", name, {value: k})));
  const key = ["grey: true", "blue: found", "red, hatched, with a cross: false", "ring: not found"].join(" \u00b7 ");
  $("legend").textContent = item.judged ? key : "as transcribed";
  const wrong = item.notes.filter(n => !n.ok).length;
  $("roll").setAttribute("aria-label",
    `Piano roll, ${item.notes.length} notes` + (item.judged ? `, ${wrong} of them with an error, listed below` : ""));
  const kinds = [...new Set(item.notes.filter(n => n.listed).map(n => n.error))];
  $("error").replaceChildren(make("option", "all", {value: "all"}), ...kinds.map(kind => make("option", kind,
    {value: kind})));
  listErrors();
}
function listErrors() {
  const kind = $("error").value, shown = $("instrument").value;
  const wanted = n => n.listed && (kind === "all" || n.error === kind) && (shown === "all" || n.who === Number(shown));
  const chosen = item.notes.filter(wanted).sort((a, b) => a.on - b.on);
  $("count").textContent = chosen.length > 400 ? `${chosen.length}, the first 400 of them here` : `${chosen.length}`;
  $("errors").replaceChildren(...chosen.slice(0, 400).map(n => {
    const button = make("button",
      `${clockText(n.on)}  ${n.error}${n.more}: ${pitchName(n.pitch)}, ${item.instruments[n.who]}`, {type: "button"});
    button.onclick = () => { if (Number($("zoom").value) === 0 && item.seconds > 10) $("zoom").value = "8";
      seek(Math.max(0, n.on - 1)); };
    const entry = make("li", ""); entry.append(button); return entry;
  }));
}
function buildTables() {
  $("tables").replaceChildren(make("h2", "Scores"));
  const tables = [...item.tables, ...data.tables]; $("tables").hidden = !tables.length;
  for (const {title, columns, rows} of tables) {
    const table = make("table", ""), head = make("tr", ""), wrap = make("div", "", {class: "scroll", tabindex: "0",
      role: "region", "aria-label": title});
    for (const column of columns) head.append(make("th", column, {scope: "col"}));
    table.append(make("caption", title), head);
    for (const row of rows) { const line = make("tr", ""); for (const cell of row) line.append(make("td", cell));
      table.append(line); }
    wrap.append(table); $("tables").append(wrap);
  }
}
function open(number) {
  if (playing) stop();
  for (const track of tracks) if (track.gain) track.gain.disconnect();
  const raw = data.items[number];
  item = {...raw, notes: raw.notes.map(([side, on, off, pitch, who, error, more, listed]) => ({side, on, off, pitch,
    who, error, more, listed, ok: !error || error === "correct" || error === "wrong offset"}))};
  offset = 0; $("seek").max = item.seconds; $("zoom").value = item.seconds > 90 ? "20" : "0";
  buildTracks(); buildNotes(); buildTables(); readColours(); draw(); load();
}
$("title").textContent = data.title; $("about").textContent = data.about; document.title = data.title;
$("chooser").hidden = data.items.length < 2;
$("item").append(...data.items.map((one, k) => make("option", one.name, {value: k})));
$("item").onchange = () => open(Number($("item").value));
$("play").onclick = () => { playing ? stop() : start(); draw(); };
$("seek").oninput = () => seek(Number($("seek").value));
$("volume").oninput = () => { master.gain.setTargetAtTime(Number($("volume").value), context.currentTime, 0.01); };
$("zoom").onchange = draw; $("error").onchange = listErrors; $("instrument").onchange = () => { listErrors(); draw();
  };
$("roll").onclick = event => { const box = $("roll").getBoundingClientRect(), [from, to] = span();
  seek(from + Math.max(0, event.clientX - box.left - GUTTER) / (box.width - GUTTER) * (to - from)); };
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT",
    "BUTTON"].includes(event.target.tagName) && !/^[0-9]$/.test(event.key)) return;
  if (event.key === " " && !$("play").disabled) $("play").click();
  else if (event.key === "ArrowLeft") seek(position() - 2);
  else if (event.key === "ArrowRight") seek(position() + 2);
  else if (event.key === "0") { for (const track of tracks) track.solo = false; applyLevels(); }
  else if (/^[1-9]$/.test(event.key) && tracks[event.key - 1]) tracks[event.key - 1].soloButton.click();
  else return;
  event.preventDefault();
});
new ResizeObserver(draw).observe(document.body);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); draw(); });
if (data.items.length) open(0);
else { document.querySelector("[aria-label=Mixer]").hidden = true; $("transport").hidden = true; item = {tables: []};
  buildTables(); }
