// Times as people read them, in the browser's zone.

const format = (options) => new Intl.DateTimeFormat("en-GB", options);
const CLOCK = format({ hour: "2-digit", minute: "2-digit" });
const CLOCK_SECONDS = format({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = format({ weekday: "long", day: "numeric", month: "long" });
const FULL = format({ weekday: "long", day: "numeric", month: "long", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" });
const NUMERIC = format({ year: "numeric", month: "2-digit", day: "2-digit" });
const SHORT = format({ day: "numeric", month: "short", year: "numeric" });
const MEDIUM = format({ day: "numeric", month: "long", year: "numeric" });
const LONG = format({ weekday: "long", day: "numeric", month: "long", year: "numeric" });

export const dateOf = (ts) => new Date(Number(ts) * 1000);
export const clock = (ts) => CLOCK.format(dateOf(ts));
export const clockSeconds = (ts) => CLOCK_SECONDS.format(dateOf(ts));
export const full = (ts) => FULL.format(dateOf(ts));
export const dayKey = (ts) => NUMERIC.format(dateOf(ts));

function near(ts, now) {
  const days = Math.round((startOfDay(dateOf(ts)) - startOfDay(now)) / 86_400_000);
  return { 0: "Today", "-1": "Yesterday", 1: "Tomorrow" }[days] ?? null;
}

function startOfDay(date) {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
}

export const day = (ts) => near(ts, new Date()) ?? DAY.format(dateOf(ts));

/** "5 minutes ago", "in 2 hours". */
export function ago(ts, now = Date.now() / 1000) {
  const seconds = Math.round(Number(ts) - now);
  const units = [["day", 86_400], ["hour", 3_600], ["minute", 60]];
  const relative = new Intl.RelativeTimeFormat("en-GB", { numeric: "auto" });
  for (const [unit, size] of units) {
    if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
  }
  return Math.abs(seconds) < 10 ? "just now" : relative.format(seconds, "second");
}

/** Fill the braces of a `<!date^...>` format. */
export function slackDate(ts, pattern) {
  const date = dateOf(ts);
  const pretty = (form) => near(ts, new Date()) ?? form.format(date);
  const lower = (form, index) => (index === 0 ? pretty(form) : pretty(form).replace(/^(Today|Yesterday|Tomorrow)$/, (w) => w.toLowerCase()));
  return pattern.replace(/\{(\w+)\}/g, (whole, name, index) => {
    switch (name) {
      case "date_num": return NUMERIC.format(date).split("/").reverse().join("-");
      case "date": return MEDIUM.format(date);
      case "date_slash": return NUMERIC.format(date);
      case "date_short": return SHORT.format(date);
      case "date_long": return LONG.format(date);
      case "date_pretty": return lower(MEDIUM, index);
      case "date_short_pretty": return lower(SHORT, index);
      case "date_long_pretty": return lower(LONG, index);
      case "time": return CLOCK.format(date);
      case "time_secs": return CLOCK_SECONDS.format(date);
      case "ago": return ago(ts);
      default: return whole;
    }
  });
}
