// The page: a picture from a file, the clipboard, a drop, the sample or the webcam, and what the service finds in it.

import { annotated, drawOverlay, labelOf, listFaces, words } from "./faces.js";

const at = (id) => document.getElementById(id);
const [stage, drop, intro, view, picture, video, overlay, tip] =
  ["stage", "drop", "intro", "view", "picture", "video", "overlay", "tip"].map(at);
const [busy, message, status, cards, exportsBox, json] =
  ["busy", "message", "status", "faces", "exports", "json"].map(at);

const LIVE_WIDTH = 640;
const SPEAK_EVERY = 3000; // ms between what a screen reader says of the webcam
const NO_ANSWER = "The service does not answer. Check that it is still running, then try again.";
const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

let about = null; // the service's limits
let shown = null; // the answer on display
let source = null; // what its picture can be drawn from: an image or a canvas
let name = "picture";
let running = null; // aborts the request under way
let camera = null; // the webcam's stream

class Refused extends Error {
  constructor(text, { status: code = 0, wait = 0 } = {}) {
    super(text);
    this.code = code;
    this.wait = wait;
  }
}

// What the service says

async function ask(body, signal) {
  const token = sessionStorage.getItem("token");
  let answer;
  try {
    answer = await fetch("/v1/analyze", {
      method: "POST",
      body,
      signal,
      headers: {
        "content-type": body.type || "application/octet-stream",
        ...(token ? { authorization: `Bearer ${token}` } : {}),
      },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(NO_ANSWER);
  }
  if (answer.ok) return (await answer.json())[0];
  if (answer.status === 401) {
    sessionStorage.removeItem("token");
    await askForToken();
    return ask(body, signal);
  }
  const { error } = await answer.json().catch(() => ({ error: answer.statusText }));
  throw new Refused(explain(answer.status, error), {
    status: answer.status,
    wait: Number(answer.headers.get("retry-after") ?? 0),
  });
}

function explain(code, error) {
  if (code === 400) {
    const what = error.includes("damaged") ? "it is damaged or cut off" : "it is of no known kind";
    return `This cannot be read as a picture: ${what}. It should be JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF.`;
  }
  const plain = {
    413: "This file is too large",
    422: "This picture has too many pixels",
    429: "The service is busy",
    503: "The service is not ready",
  }[code];
  return plain ? `${plain}: ${error}.` : `The service refused this: ${error}.`;
}

function askForToken() {
  const [dialog, input] = [at("key"), at("token")];
  dialog.returnValue = "";
  input.value = "";
  dialog.showModal();
  return new Promise((go, stop) => {
    dialog.addEventListener(
      "close",
      () => {
        if (dialog.returnValue !== "ok") {
          stop(new Refused("This service asks for a token; without it nothing is analysed."));
          return;
        }
        sessionStorage.setItem("token", input.value.trim());
        go();
      },
      { once: true },
    );
  });
}

// What the page shows

function say(text) {
  if (status.textContent !== text) status.textContent = text;
}

function complain(text) {
  message.textContent = text;
  message.hidden = !text;
}

function summary({ faces }) {
  if (!faces.length) {
    return "No face found. A face should be at least about 20 pixels wide and not turned far away.";
  }
  if (faces.length === 1) return `One face: ${labelOf(faces[0])}.`;
  return `${faces.length} faces: ${faces.map((face, k) => `${k + 1} ${labelOf(face)}`).join(", ")}.`;
}

const unit = () => (shown ? shown.width / (overlay.clientWidth || shown.width) : 1);

function show(answer, from) {
  [shown, source] = [answer, from];
  tip.hidden = true;
  overlay.classList.remove("faces-marked");
  drawOverlay(overlay, answer, unit());
  listFaces(cards, answer, from);
  json.textContent = JSON.stringify(answer, null, 2);
  exportsBox.hidden = false;
  at("download").disabled = !from;
}

function clear() {
  [shown, source] = [null, null];
  overlay.replaceChildren();
  cards.replaceChildren();
  exportsBox.hidden = true;
  tip.hidden = true;
}

function showStage(kind) {
  intro.hidden = kind !== "intro";
  view.hidden = kind === "intro";
  picture.hidden = kind !== "picture";
  video.hidden = kind !== "video";
  view.classList.remove("unseen");
  picture.style.aspectRatio = "";
}

// Give the decoded picture, or null where the browser does not know its format.
async function display(blob) {
  URL.revokeObjectURL(picture.src);
  const address = URL.createObjectURL(blob);
  picture.src = address;
  showStage("picture");
  try {
    await picture.decode();
    return picture;
  } catch {
    if (picture.src === address) showStage("intro"); // else the next picture has come
    return null;
  }
}

// A picture

async function analyse(blob, called) {
  stopCamera();
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  complain("");
  clear();
  name = called.replace(/\.[^.]*$/, "") || "picture";
  if (about && blob.size > about.limits.body) {
    showStage("intro");
    say("Nothing was analysed.");
    complain(`This file is too large: ${megabytes(blob.size)}, the limit is ${megabytes(about.limits.body)}.`);
    return;
  }
  busy.hidden = false;
  say("Looking for faces …");
  try {
    const [seen, answer] = await Promise.all([display(blob), ask(blob, signal)]);
    if (signal.aborted) return;
    if (!seen) {
      showStage("picture");
      view.classList.add("unseen");
      picture.style.aspectRatio = `${answer.width} / ${answer.height}`;
      complain("This browser cannot show the picture, but the service could read it.");
    }
    picture.alt = `${called}, with the faces that were found`;
    show(answer, seen);
    say(summary(answer));
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Refused)) throw error;
    if (error.code === 400 || error.code === 422) showStage("intro");
    say("Nothing was analysed.");
    complain(error.message);
  } finally {
    if (!signal.aborted) busy.hidden = true;
  }
}

function take(files) {
  const [file] = files;
  if (!file) return;
  analyse(file, file.name || "pasted picture");
}

async function trySample() {
  const answer = await fetch("/assets/sample.png").catch(() => null);
  if (answer) analyse(await answer.blob(), "sample.png");
  else complain(NO_ANSWER);
}

// The webcam

const CAMERA_FAULTS = {
  NotAllowedError: "The browser may not use the webcam. Allow it for this page, then try again.",
  NotFoundError: "There is no webcam here.",
  NotReadableError: "Another program uses the webcam. Close it, then try again.",
};

async function startCamera() {
  running?.abort();
  complain("");
  if (!navigator.mediaDevices) {
    complain("Browsers give the webcam only to pages from https or from this very machine (localhost).");
    return;
  }
  try {
    camera = await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: { width: { ideal: LIVE_WIDTH }, facingMode: "user" },
    });
  } catch (error) {
    complain(CAMERA_FAULTS[error.name] ?? `The webcam cannot be used: ${error.message}.`);
    return;
  }
  clear();
  name = "webcam";
  video.srcObject = camera;
  showStage("video");
  at("webcam").setAttribute("aria-pressed", "true");
  at("webcam").textContent = "Stop the webcam";
  say("The webcam is on.");
  await video.play();
  await live(camera);
}

async function live(stream) {
  const frame = document.createElement("canvas");
  let spoken = 0;
  while (camera === stream) {
    const scale = Math.min(1, LIVE_WIDTH / video.videoWidth);
    frame.width = Math.round(video.videoWidth * scale);
    frame.height = Math.round(video.videoHeight * scale);
    frame.getContext("2d").drawImage(video, 0, 0, frame.width, frame.height);
    const blob = await new Promise((done) => frame.toBlob(done, "image/jpeg", 0.85));
    running = new AbortController();
    try {
      const answer = await ask(blob, running.signal);
      if (camera !== stream) return;
      const still = Object.assign(document.createElement("canvas"), { width: frame.width, height: frame.height });
      still.getContext("2d").drawImage(frame, 0, 0);
      show(answer, still);
      if (performance.now() - spoken > SPEAK_EVERY) {
        spoken = performance.now();
        say(summary(answer));
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Refused)) throw error;
      if (error.wait) {
        await pause(error.wait * 1000);
      } else {
        stopCamera();
        complain(error.message);
      }
    }
    while (document.hidden && camera === stream) await pause(200);
  }
}

// The last picture that was analysed stays.
function stopCamera() {
  if (!camera) return;
  running?.abort();
  for (const track of camera.getTracks()) track.stop();
  camera = null;
  video.srcObject = null;
  at("webcam").setAttribute("aria-pressed", "false");
  at("webcam").textContent = "Use the webcam";
  const [answer, still] = [shown, source];
  if (!answer || !still) {
    showStage("intro");
    return;
  }
  still.toBlob(async (blob) => {
    if (shown !== answer) return; // another picture came
    await display(blob);
    picture.alt = "The webcam's last picture";
    say(summary(answer));
  });
}

// Faces and points under the mouse and the keyboard

function mark(face) {
  for (const one of document.querySelectorAll("[data-face]")) {
    one.classList.toggle("marked", face !== null && one.dataset.face === face);
  }
  overlay.classList.toggle("faces-marked", face !== null && cards.children.length > 1);
}

function markPoint(point) {
  overlay.querySelector(".point.marked")?.classList.remove("marked");
  tip.hidden = !point;
  if (!point) return "";
  point.classList.add("marked");
  const face = shown.faces[Number(point.closest(".face").dataset.face)];
  const key = point.dataset.name;
  const [x, y] = face.keypoints[key];
  const text = `${words(key)}: ${x.toFixed(1)}, ${y.toFixed(1)} ± ${face.sigma[key].toFixed(1)}`;
  tip.textContent = text;
  const [whole, half] = [view.clientWidth, tip.offsetWidth / 2];
  tip.style.left = `${Math.max(half, Math.min(whole - half, (whole * x) / shown.width))}px`;
  tip.style.top = `${Math.min(92, (100 * face.box[3]) / shown.height)}%`; // below the face, not over it
  return text;
}

function stepThroughPoints(event) {
  const face = event.target.closest(".face");
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!face || !shown) return;
  if (event.key === "Escape") markPoint(null);
  if (!step) return;
  event.preventDefault();
  const points = [...face.querySelectorAll(".point")];
  const now = points.indexOf(face.querySelector(".point.marked"));
  const next = now < 0 && step < 0 ? points.length - 1 : (now + step + points.length) % points.length;
  say(markPoint(points[next]));
}

// Results in other forms

function download() {
  annotated(source, shown).toBlob(
    (blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${name}-faces.jpg`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    },
    "image/jpeg",
    0.92,
  );
}

async function copy() {
  const button = at("copy");
  try {
    await navigator.clipboard.writeText(json.textContent);
    button.textContent = "Copied";
    say("The JSON is in the clipboard.");
    setTimeout(() => (button.textContent = "Copy JSON"), 2000);
  } catch {
    json.closest("details").open = true;
    getSelection().selectAllChildren(json);
    json.focus();
    say("The browser lets no page copy here. The JSON is selected: copy it with Ctrl C.");
  }
}

// Events

at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", ({ target }) => {
  take(target.files);
  target.value = "";
});
at("sample").addEventListener("click", trySample);
at("webcam").addEventListener("click", () => (camera ? stopCamera() : startCamera()));
at("download").addEventListener("click", download);
at("copy").addEventListener("click", copy);
at("show-points").addEventListener("change", ({ target }) => {
  overlay.classList.toggle("no-points", !target.checked);
  if (!target.checked) markPoint(null);
});

document.addEventListener("paste", ({ clipboardData }) => take(clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer.files);
});

overlay.addEventListener("pointerover", ({ target }) => {
  mark(target.closest(".face")?.dataset.face ?? null);
  markPoint(target.closest(".point"));
});
overlay.addEventListener("pointerleave", () => {
  mark(null);
  markPoint(null);
});
// Not on the overlay: Chromium makes an SVG element with listeners for focus a stop of the Tab key.
view.addEventListener("focusin", ({ target }) => mark(target.closest(".face")?.dataset.face ?? null));
view.addEventListener("focusout", () => {
  mark(null);
  markPoint(null);
});
overlay.addEventListener("keydown", stepThroughPoints);
overlay.addEventListener("click", ({ target }) => {
  const face = target.closest(".face");
  if (face) cards.children[Number(face.dataset.face)].scrollIntoView({ block: "nearest" });
});
cards.addEventListener("pointerover", ({ target }) => mark(target.closest(".card")?.dataset.face ?? null));
cards.addEventListener("pointerleave", () => mark(null));
new ResizeObserver(() => overlay.style.setProperty("--unit", unit())).observe(view);

async function greet() {
  try {
    about = await (await fetch("/v1/about")).json();
    at("about").textContent = `facekit ${about.version}${about.weights ? `, weights ${about.weights}` : ""}`;
    if (!about.ready) say("The models are being loaded.");
  } catch {
    complain(NO_ANSWER);
  }
}
greet();
