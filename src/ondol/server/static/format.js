// Numbers for people, in the page's language. Whatever is not known is a dash.
export const DASH = "–";

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export function makeFormat(language, texts) {
  const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
  const one = new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  const short = new Intl.NumberFormat(language, { maximumSignificantDigits: 3 });
  const unit = (value, name) => (language === "ko" ? `${value}${texts[name]}` : `${value}\u00a0${texts[name]}`);
  return {
    count: (value) => (isNumber(value) ? whole.format(value) : DASH),
    percent: (value) => (isNumber(value) ? `${one.format(value)}%` : DASH),
    rate: (value) => (!isNumber(value) ? DASH : value >= 100 ? whole.format(value) : one.format(value)),
    bytes(value) {
      if (!isNumber(value)) return DASH;
      let rest = value;
      let name = "B";
      for (const next of ["KiB", "MiB", "GiB", "TiB"]) {
        if (rest < 1024) break;
        rest /= 1024;
        name = next;
      }
      return `${name === "B" || rest >= 100 ? whole.format(rest) : one.format(rest)}\u00a0${name}`;
    },
    seconds(value) {
      if (!isNumber(value)) return DASH;
      if (value < 1e-3) return `${short.format(value * 1e6)}\u00a0µs`;
      if (value < 1) return `${short.format(value * 1e3)}\u00a0ms`;
      return value < 60 ? unit(short.format(value), "s") : this.duration(value);
    },
    /** How long ago, in one coarse unit, so that the page does not change each second. */
    ago(value) {
      if (!isNumber(value)) return DASH;
      const [name, size] = [["d", 86400], ["h", 3600], ["min", 60]].find(([, length]) => value >= length) ?? [];
      return name ? texts.ago(unit(whole.format(Math.floor(value / size)), name)) : texts.justNow;
    },
    figure: (value) => (isNumber(value) ? new Intl.NumberFormat(language, { maximumSignificantDigits: 6 }).format(value) : DASH),
    /** A time of day; with its date when that is not today. */
    clock(date) {
      const isToday = date.toDateString() === new Date().toDateString();
      return isToday ? date.toLocaleTimeString(language, { timeStyle: "medium" }) : this.moment(date);
    },
    moment: (date) => date.toLocaleString(language, { dateStyle: "medium", timeStyle: "medium" }),
    duration(value) {
      if (!isNumber(value)) return DASH;
      const s = Math.floor(value);
      const parts = [[Math.floor(s / 86400), "d"], [Math.floor(s / 3600) % 24, "h"], [Math.floor(s / 60) % 60, "min"], [s % 60, "s"]];
      const first = parts.findIndex(([n]) => n > 0);
      return first < 0 ? unit(0, "s") : parts.slice(first, first + 2).map(([n, name]) => unit(n, name)).join(" ");
    },
  };
}
