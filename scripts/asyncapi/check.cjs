// Reads an AsyncAPI document from standard input, writes what the official parser says of it as JSON.
const { Parser } = require("@asyncapi/parser");

const levels = ["error", "warning", "info", "hint"];
let text = "";
process.stdin.setEncoding("utf8");
process.stdin.on("data", (part) => (text += part));
process.stdin.on("end", async () => {
  const { document, diagnostics } = await new Parser().parse(text);
  const said = diagnostics.map(({ severity, code, message, path }) => ({
    level: levels[severity], code, message, path: path.join("/"),
  }));
  process.stdout.write(JSON.stringify({ parsed: document !== undefined, said }));
});
