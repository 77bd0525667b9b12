// Builds the page into ../static: one script, one style sheet, the licences of what they hold, and a digest of the
// sources, by which a test sees a stale bundle (streams/jobs/console.py makes the same digest).
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const OUT = "../static";
mkdirSync(OUT, { recursive: true });

await build({
  entryPoints: { app: "src/app.tsx", theme: "src/theme.ts" },
  outdir: OUT,
  bundle: true,
  minify: true,
  format: "iife",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  charset: "utf8",
});
copyFileSync("index.html", `${OUT}/index.html`);

const libraries = ["preact", "@preact/signals", "@preact/signals-core", "uplot"];
const licences = libraries.map((name) => {
  const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  return `${name} ${version}\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim()}\n`;
});
writeFileSync(`${OUT}/licences.txt`, licences.join("\n----\n\n"));

const sources = ["package-lock.json", "package.json", "build.mjs", "index.html", "tsconfig.json"];
for (const name of readdirSync("src").sort()) sources.push(`src/${name}`);
const whole = createHash("sha256");
for (const name of sources) {
  whole.update(`${name} ${createHash("sha256").update(readFileSync(name)).digest("hex")}\n`);
}
writeFileSync(`${OUT}/sources.txt`, `${whole.digest("hex")}\n`);
