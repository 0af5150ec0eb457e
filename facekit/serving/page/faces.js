// Draws an answer of the service: over the picture, beside it, and into a copy of it.

const SVG = "http://www.w3.org/2000/svg";
const COLORS = { left: "#ff9500", right: "#40c4ff", middle: "#ffffff", box: "#7ce65c", shade: "#101010" };

export const percent = (share) => `${Math.round(share * 100)}%`;
export const words = (name) => name.replaceAll("_", " ");
export const labelOf = ({ expression }) => `${expression.label} ${percent(expression.confidence)}`;
const sideOf = (name) => ["left", "right"].find((side) => name.split("_").includes(side)) ?? "middle";

// Points have their pixels' centres at integers, a canvas and an SVG have them at halves.
const place = ([x, y]) => [x + 0.5, y + 0.5];

function element(kind, attributes, ...children) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function html(kind, properties, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

function boxOf({ box: [x0, y0, x1, y1] }, kind) {
  return element("rect", { class: kind, x: x0, y: y0, width: x1 - x0, height: y1 - y0 });
}

// Where a face's label is written: above its box where there is room, else inside it.
function labelPlace({ box: [x0, y0, x1] }, width, size) {
  const atEnd = x0 > width * 0.7;
  return { x: atEnd ? Math.min(x1, width) : Math.max(x0, 0), y: y0 > size * 1.5 ? y0 - size * 0.45 : y0 + size * 1.25, atEnd };
}

/** Draw boxes, labels and points over a picture; `unit` is a screen pixel's size in the picture's pixels. */
export function drawOverlay(svg, { width, height, faces }, unit) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.style.setProperty("--unit", unit);
  svg.replaceChildren(
    ...faces.map((face, k) => {
      const { x, y, atEnd } = labelPlace(face, width, 15 * unit);
      const text = faces.length > 1 ? `${k + 1} ${labelOf(face)}` : labelOf(face);
      const points = Object.entries(face.keypoints).map(([name, point]) => {
        const [cx, cy] = place(point);
        const dot = element("circle", { class: `dot ${sideOf(name)}`, cx, cy });
        dot.style.setProperty("--dot", `${(face.box[2] - face.box[0]) / 75}px`);
        const touch = element("circle", { class: "touch", cx, cy });
        const group = element("g", { class: "point" }, touch, dot);
        group.dataset.name = name;
        return group;
      });
      const group = element(
        "g",
        {
          class: "face",
          tabindex: "0",
          role: "group",
          "aria-label": `Face ${k + 1}: ${labelOf(face)}. Arrow keys go through its ${points.length} points.`,
        },
        boxOf(face, "box-shade"),
        boxOf(face, "box"),
        element("text", { class: "label", x, y, "text-anchor": atEnd ? "end" : "start", "aria-hidden": "true" }, text),
        ...points,
      );
      group.dataset.face = k;
      return group;
    }),
  );
}

function scores({ scores: shares, label }) {
  const list = html("dl", { className: "scores" });
  for (const [name, share] of Object.entries(shares)) {
    const bar = html("i", {});
    bar.style.setProperty("--share", percent(share));
    const kind = name === label ? "top-score" : "";
    list.append(
      html("dt", { className: kind }, name),
      html("dd", {}, bar, html("span", { className: kind }, percent(share))),
    );
  }
  return list;
}

function thumbnail(source, [x0, y0, x1, y1]) {
  const canvas = html("canvas", { width: 104, height: 104, ariaHidden: "true" });
  const side = Math.max(x1 - x0, y1 - y0);
  const [left, top] = [(x0 + x1 - side) / 2, (y0 + y1 - side) / 2];
  canvas.getContext("2d").drawImage(source, left, top, side, side, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** List the faces with their probabilities; `source` is the picture, or null where the browser cannot show it. */
export function listFaces(list, { faces }, source) {
  list.replaceChildren(
    ...faces.map((face, k) => {
      const [x0, y0, x1, y1] = face.box;
      const size = `${Math.round(x1 - x0)} × ${Math.round(y1 - y0)} px`;
      const card = html(
        "li",
        { className: "card" },
        html(
          "header",
          {},
          ...(source ? [thumbnail(source, face.box)] : []),
          html(
            "div",
            {},
            html("h3", {}, face.expression.label, " ", html("b", {}, percent(face.expression.confidence))),
            html("p", {}, `Face ${k + 1}, ${size}, detection ${percent(face.score)}`),
          ),
        ),
        scores(face.expression),
      );
      card.dataset.face = k;
      return card;
    }),
  );
}

/** Give a canvas with the picture and everything that was found in it. */
export function annotated(source, { width, height, faces }) {
  const canvas = html("canvas", { width, height });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#ffffff";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(source, 0, 0, width, height);
  for (const face of faces) {
    const [x0, y0, x1, y1] = face.box;
    const size = Math.sqrt((x1 - x0) * (y1 - y0));
    for (const [color, line] of [[COLORS.shade, size / 45], [COLORS.box, size / 90]]) {
      pen.strokeStyle = color;
      pen.lineWidth = Math.max(line, color === COLORS.box ? 1.5 : 3);
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    for (const [name, point] of Object.entries(face.keypoints)) {
      pen.beginPath();
      pen.arc(...place(point), Math.max(size / 65, 1), 0, 2 * Math.PI);
      pen.fillStyle = COLORS[sideOf(name)];
      pen.strokeStyle = COLORS.shade;
      pen.lineWidth = Math.max(size / 250, 0.5);
      pen.fill();
      pen.stroke();
    }
    const font = Math.max(13, Math.min(size / 8, width / 16));
    const { x, y, atEnd } = labelPlace(face, width, font);
    pen.font = `600 ${font}px system-ui, sans-serif`;
    pen.textAlign = atEnd ? "end" : "start";
    pen.lineJoin = "round";
    pen.lineWidth = font / 4;
    pen.strokeStyle = COLORS.shade;
    pen.fillStyle = COLORS.box;
    pen.strokeText(labelOf(face), x, y);
    pen.fillText(labelOf(face), x, y);
  }
  return canvas;
}
