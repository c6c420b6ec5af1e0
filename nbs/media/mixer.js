// The mixer of the first page. Without this script each track is a player of its own.
"use strict";
for (const mixer of document.querySelectorAll(".mixer")) {
  const find = (selector, within = mixer) => within.querySelector(selector);
  const play = find(".mixer-play"), seekBar = find(".mixer-seek"), clock = find(".mixer-clock");
  const tracks = [...mixer.querySelectorAll(".mixer-track")].map(row => ({
    row, button: find(".mixer-switch", row), volume: find(".mixer-volume", row), wave: find(".mixer-wave", row),
    file: find("audio", row).getAttribute("src")}));
  const seconds = Number(seekBar.max), whole = tracks[0];
  let context = null, playing = false, startedAt = 0, offset = 0;

  const isOn = track => track.button.getAttribute("aria-pressed") === "true";
  const position = () => Math.min(seconds, playing ? Math.max(offset, offset + context.currentTime - startedAt) : offset);

  function applyLevels() {
    for (const track of tracks) {
      track.row.classList.toggle("mixer-quiet", !isOn(track));
      const level = isOn(track) ? Number(track.volume.value) : 0;
      if (track.gain) track.gain.gain.setTargetAtTime(level, context.currentTime, 0.01);
    }
  }
  // All tracks start at one time of one clock, so they cannot drift apart.
  async function load() {
    context = new AudioContext();
    await Promise.all(tracks.map(async track => {
      const answer = await fetch(track.file);
      if (!answer.ok) throw new Error(`${track.file}: ${answer.status}`);
      track.buffer = await context.decodeAudioData(await answer.arrayBuffer());
      track.gain = context.createGain();
      track.gain.connect(context.destination);
    }));
  }
  function start() {
    if (offset >= seconds - 0.05) offset = 0;
    context.resume();
    applyLevels();
    startedAt = context.currentTime + 0.05;
    for (const track of tracks) {
      track.node = context.createBufferSource();
      track.node.buffer = track.buffer;
      track.node.connect(track.gain);
      track.node.start(startedAt, offset);
    }
    playing = true;
    play.textContent = "Stop";
    requestAnimationFrame(tick);
  }
  function stop() {
    offset = position();
    playing = false;
    play.textContent = "Play";
    for (const track of tracks) track.node.stop();
  }
  function seek(time) {
    const again = playing;
    if (again) stop();
    offset = Math.max(0, Math.min(seconds, time));
    if (again && offset < seconds) start();
    draw();
  }
  function draw() {
    const now = position(), text = `0:${String(Math.floor(now)).padStart(2, "0")}`;
    seekBar.value = now;
    seekBar.setAttribute("aria-valuetext", text);
    clock.textContent = text;
    mixer.style.setProperty("--played", `${100 * now / seconds}%`);
  }
  function tick() {
    if (!playing) return;
    if (position() >= seconds) { stop(); offset = 0; }
    draw();
    if (playing) requestAnimationFrame(tick);
  }
  function asPlayers(error) {  // as without the script
    mixer.classList.remove("mixer-live");
    for (const node of mixer.querySelectorAll(".mixer-transport, .mixer-switch, .mixer-volume")) node.hidden = true;
    console.error(error);
  }

  play.onclick = async () => {
    if (playing) return stop();
    try {
      if (!context) { play.disabled = true; play.textContent = "Loading"; await load(); }
      start();
    } catch (error) { asPlayers(error); }
    play.disabled = false;
  };
  seekBar.oninput = () => seek(Number(seekBar.value));
  for (const track of tracks) {
    // The recording is the sum of its stems: it and they take turns.
    track.button.onclick = () => {
      const on = !isOn(track);
      for (const other of tracks) {
        if (on && (track === whole) !== (other === whole)) other.button.setAttribute("aria-pressed", "false");
      }
      track.button.setAttribute("aria-pressed", String(on));
      applyLevels();
      if (on && !playing && !play.disabled) play.click();
    };
    track.volume.oninput = applyLevels;
    track.wave.onclick = event => {
      const box = track.wave.getBoundingClientRect();
      seek(seconds * (event.clientX - box.left) / box.width);
    };
  }
  for (const node of mixer.querySelectorAll(".mixer-transport, .mixer-switch, .mixer-volume")) node.hidden = false;
  mixer.classList.add("mixer-live");
  applyLevels();
  draw();
}
