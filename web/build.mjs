// Writes the built page to api/web, or to the folder given: the same bytes from the same sources and packages.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = resolve(process.argv[2] ?? join(here, "..", "api", "web"));

const { outputFiles } = await build({
  entryPoints: { page: join(here, "src", "main.tsx") },
  absWorkingDir: here,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  outdir: "out",
  write: false,
});

rmSync(target, { recursive: true, force: true });
mkdirSync(join(target, "assets"), { recursive: true });
const names = outputFiles.map((file) => [file.path.endsWith(".css") ? "style" : "script", write(file)]);
writeFileSync(join(target, "index.html"), page(Object.fromEntries(names)));
writeFileSync(join(target, "LICENSES.txt"), licences());

function write(file) {
  const kind = file.path.endsWith(".css") ? "css" : "js";
  const digest = createHash("sha256").update(file.contents).digest("hex").slice(0, 12);
  const name = `page-${digest}.${kind}`;
  writeFileSync(join(target, "assets", name), file.contents);
  writeFileSync(join(target, "assets", `${name}.gz`), gzipSync(file.contents, { level: 9 }));
  return name;
}

function page({ script, style }) {
  return readFileSync(join(here, "src", "index.html"), "utf8")
    .replace("{script}", `/assets/${script}`)
    .replace("{style}", `/assets/${style}`);
}

// Of the packages in the bundle, which are all that the page depends on at run time.
function licences() {
  const lock = JSON.parse(readFileSync(join(here, "package-lock.json"), "utf8"));
  const bundled = Object.entries(lock.packages).filter(([path, entry]) => path && !entry.dev && !entry.optional);
  return bundled
    .map(([path, entry]) => {
      const folder = join(here, path);
      const file = readdirSync(folder).find((name) => /^licen[cs]e/i.test(name));
      if (!file) throw new Error(`${path} has no licence file`);
      return `${path.replace("node_modules/", "")} ${entry.version} (${entry.license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
    })
    .join("\n----\n\n");
}
