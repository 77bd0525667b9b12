// Builds the page into ../static: one script, one style sheet, the licences of what they hold, and a digest of the
// sources, by which a test sees a stale bundle (streams/jobs/console.py makes the same digest). And a replay's report
// into ../report: what `--report FILE.html` puts into its one file.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const OUT = "../static";
const REPORT = "../report";
mkdirSync(OUT, { recursive: true });

const how = {
  bundle: true,
  minify: true,
  format: "iife",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  charset: "utf8",
};
await build({ ...how, entryPoints: { app: "src/app.tsx", theme: "src/theme.ts" }, outdir: OUT });
await build({ ...how, entryPoints: { report: "src/report.tsx" }, outdir: REPORT });
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
