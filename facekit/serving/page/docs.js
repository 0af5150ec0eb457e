// Shows openapi.json to people.

const html = (kind, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
};
const code = (text) => html("code", {}, text);
const table = (rows) =>
  html("table", {}, ...rows.map((cells) => html("tr", {}, ...cells.map((cell) => html("td", {}, cell)))));

// A schema's type in a few words, with links to what it names.
function typeOf(schema = {}) {
  const parts = html("span");
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    parts.append(html("a", { href: `#${name}` }, name));
  } else if (schema.anyOf) {
    schema.anyOf.forEach((one, k) => parts.append(k ? " or " : "", typeOf(one)));
  } else if (schema.prefixItems) {
    parts.append(`${schema.prefixItems.length} of `, typeOf(schema.prefixItems[0]));
  } else if (schema.type === "array") {
    parts.append("list of ", typeOf(schema.items));
  } else if (schema.type === "object" && typeof schema.additionalProperties === "object") {
    parts.append("object of names to ", typeOf(schema.additionalProperties));
  } else {
    parts.append(schema.format === "binary" ? "file" : (schema.type ?? "anything"));
  }
  return parts;
}

const described = (schema) => html("span", {}, typeOf(schema), schema?.description ? `. ${schema.description}` : "");

function operation(path, method, told) {
  const body = Object.entries(told.requestBody?.content ?? {});
  const answers = Object.entries(told.responses).map(([status, answer]) => [
    status,
    html("span", {}, typeOf(answer.content?.["application/json"]?.schema), `. ${answer.description}`),
  ]);
  return html(
    "article",
    {},
    html("h2", {}, html("span", { className: "method" }, method.toUpperCase()), code(path), told.summary),
    html("p", {}, told.description ?? ""),
    ...(body.length ? [html("h3", {}, "Body"), table(body.map(([kind, { schema }]) => [kind, described(schema)]))] : []),
    html("h3", {}, "Answers"),
    table(answers),
  );
}

const schema = ([name, { description, properties = {} }]) =>
  html(
    "article",
    { id: name },
    html("h2", {}, code(name)),
    html("p", {}, description ?? ""),
    table(Object.entries(properties).map(([key, one]) => [key, described(one)])),
  );

const told = await (await fetch("/openapi.json")).json();
document.getElementById("short").textContent = [
  `curl --data-binary @portrait.jpg -H 'Content-Type: image/jpeg' ${location.origin}/v1/analyze`,
  `curl -F pictures=@one.jpg -F pictures=@two.jpg ${location.origin}/v1/analyze`,
  `curl --data-binary @faces.zip -H 'Content-Type: application/zip' ${location.origin}/v1/crosscheck`,
].join("\n");
document.getElementById("paths").append(
  ...Object.entries(told.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => operation(path, method, one)),
  ),
);
document
  .getElementById("schemas")
  .append(...Object.entries(told.components.schemas).filter(([, one]) => one.properties).map(schema));
