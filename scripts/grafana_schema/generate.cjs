// Writes the JSON schema of the type `Board` of boards.ts to standard output.
const { createGenerator } = require("ts-json-schema-generator");
const path = require("node:path");
const config = {
  path: path.join(__dirname, "boards.ts"), tsconfig: path.join(__dirname, "tsconfig.json"), type: "Board",
  skipTypeCheck: true, additionalProperties: false, topRef: true, jsDoc: "none",
};
process.stdout.write(JSON.stringify(createGenerator(config).createSchema("Board")));
