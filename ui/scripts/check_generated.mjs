// The committed protobuf types are what the generator makes of ../proto today.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const committed = join(root, "src/wire/generated");
const fresh = mkdtempSync(join(tmpdir(), "dashstream-generated-"));

try {
  execFileSync("buf", ["generate", "--output", fresh], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, PATH: `${join(root, "node_modules/.bin")}:${process.env.PATH}` },
  });
  const made = join(fresh, "src/wire/generated");
  const names = new Set([...readdirSync(made), ...readdirSync(committed)]);
  const stale = [...names].filter((name) => read(made, name) !== read(committed, name));
  if (stale.length > 0) {
    console.error(`stale: ${stale.join(", ")}; run \`npm run generate\` and commit the result`);
    process.exitCode = 1;
  } else {
    console.log(`generated: ${names.size} files are what ../proto says`);
  }
} finally {
  rmSync(fresh, { recursive: true, force: true });
}

function read(folder, name) {
  try {
    return readFileSync(join(folder, name), "utf8");
  } catch {
    return null;
  }
}
