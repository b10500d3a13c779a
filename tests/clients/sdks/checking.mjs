// What the checks of the JavaScript SDKs share: each file prints one JSON line for each check, as checking.py does.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { url: { type: "string" }, key: { type: "string" } } });
export const where = { origin: values.url, url: `${values.url}/v1`, key: values.key };

export const WEATHER = {
  type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false,
};
export const CITY = {
  type: "object", properties: { city: { type: "string" }, n: { type: "integer" } }, required: ["city", "n"], additionalProperties: false,
};
export const CALL_WEATHER = 'TOOL get_weather {"city": "Rome"}';
export const SUNNY = "sunny in Rome";
export const SAID_SUNNY = `The tool said: ${SUNNY}`;

function versionOf(name) {
  return JSON.parse(readFileSync(`${process.cwd()}/node_modules/${name}/package.json`, "utf8")).version;
}

export async function main(packages, checks) {
  const version = packages.map(versionOf).join(" ");
  for (const [check, run] of Object.entries(checks)) {
    const began = performance.now();
    let why = "";
    try {
      await run();
    } catch (error) {
      why = String(error?.stack ?? error).slice(0, 1500);
    }
    console.log(JSON.stringify({ check, version, why, took_s: Math.round((performance.now() - began) / 10) / 100 }));
  }
  process.exit(0);
}

export { assert };
