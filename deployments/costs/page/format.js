// Numbers and times as they are read. Times are UTC, as the sums are.
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 2 });

export const count = (value) => whole.format(value);
export const compact = (value) => (value < 10_000 ? whole.format(value) : short.format(value));
export const DASH = "–";

/** USD with as many digits as matter: $1,234, $12.30, $0.0412, $0.00000213. */
export function usd(value) {
  if (value === null || value === undefined) return DASH;
  const size = Math.abs(value), sign = value < 0 ? "−" : "";
  if (size === 0) return "$0";
  if (size >= 1000) return `${sign}$${whole.format(size)}`;
  if (size >= 1) return `${sign}$${size.toFixed(2)}`;
  const digits = Math.min(12, 2 - Math.floor(Math.log10(size)));
  return `${sign}$${size.toFixed(digits).replace(/(\.\d\d\d*?)0+$/, "$1")}`;
}

/** `+3 %`, `−2 %`: which way something is off. */
export const signed = (share) => `${share > 0 ? "+" : ""}${percent(share, 0)}`;

export function percent(share, digits = 1) {
  return share === null || share === undefined ? DASH : `${(share * 100).toFixed(digits).replace("-", "−")} %`;
}

/** Seconds as 0.42 s, 12 s, 3.4 min, 5.6 h. */
export function seconds(value) {
  if (value === null || value === undefined) return DASH;
  if (value === 0) return "0 s";
  if (value < 0) return `−${seconds(-value)}`;
  if (value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${(value * 1e3).toFixed(value < 0.1 ? 1 : 0)} ms`;
  if (value < 120) return `${value.toFixed(value < 10 ? 2 : 0)} s`;
  if (value < 7200) return `${(value / 60).toFixed(1)} min`;
  return value < 360_000 ? `${(value / 3600).toFixed(1)} h` : `${whole.format(value / 3600)} h`;
}

const two = (value) => String(value).padStart(2, "0");
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** `24 Nov 13:05:09`, and `24 Nov` or `24 Nov 13:00` for a bucket of that length. */
export function moment(unix) {
  const d = new Date(unix * 1000);
  return `${d.getUTCDate()} ${MONTHS[d.getUTCMonth()]} ${two(d.getUTCHours())}:${two(d.getUTCMinutes())}:${two(d.getUTCSeconds())}`;
}

export function bucket(unix, step) {
  const d = new Date(unix * 1000), day = `${d.getUTCDate()} ${MONTHS[d.getUTCMonth()]}`;
  return step >= 86_400 ? day : `${day} ${two(d.getUTCHours())}:00`;
}

export const day = (unix) => new Date(unix * 1000).toISOString().slice(0, 10);
export const tierName = (tier) => tier || "no answer";
