// Layers: wire ← stream ← model ← store ← views. A layer may use itself and what is left of it, nothing else.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const LAYERS = ["wire", "stream", "model", "store", "views"];
// What each layer may use from outside; tests may use more.
const PACKAGES = {
  wire: ["@bufbuild/protobuf", "fzstd"],
  stream: [],
  model: [],
  store: [],
  views: ["react"],
};
const MAX_LINES = 350;

const source = resolve(dirname(fileURLToPath(import.meta.url)), "../src");
const faults = [];
let checked = 0;

for (const entry of readdirSync(source, { recursive: true, withFileTypes: true })) {
  const path = join(entry.parentPath, entry.name);
  const file = relative(source, path);
  if (!entry.isFile() || !/\.tsx?$/.test(file) || file.startsWith("wire/generated/")) {
    continue;
  }
  checked += 1;
  check(file, readFileSync(path, "utf8"));
}

function check(file, text) {
  const layer = file.split("/")[0];
  const rank = LAYERS.indexOf(layer);
  const isTest = /\.test\.tsx?$/.test(file);
  if (!isTest && text.split("\n").length > MAX_LINES) {
    faults.push(`${file}: longer than ${MAX_LINES} lines`);
  }
  if (rank < 0 || isTest) {
    return;
  }
  for (const [, target] of text.matchAll(/(?:\bfrom |\bimport |\bimport\(|new URL\()"([^"\n]+)"/g)) {
    if (target.startsWith(".")) {
      const used = relative(source, resolve(source, dirname(file), target)).split("/")[0];
      if (LAYERS.indexOf(used) < 0 || LAYERS.indexOf(used) > rank) {
        faults.push(`${file}: ${layer} must not use ${target}`);
      }
    } else if (!PACKAGES[layer].some((name) => target === name || target.startsWith(`${name}/`))) {
      faults.push(`${file}: ${layer} must not use the package ${target}`);
    }
  }
}

if (checked === 0) {
  faults.push("no source file was found");
}
if (faults.length > 0) {
  console.error(faults.join("\n"));
  process.exit(1);
}
console.log(`imports: ${checked} files keep the layers`);
