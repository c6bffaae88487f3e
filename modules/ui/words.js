/* How things are said. */

/** "3 s", "2 min 5 s", "1 h 10 min". */
export function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

/** What the running job is doing, in one line. */
export function progressWords(running, engine) {
  if (running.interrupting) return "Interrupting…";
  const phases = {
    load: engine.state === "loading" ? engine.text : "loading the checkpoint",
    encode: "reading the prompt",
    draw: `step ${running.step} of ${running.steps}`,
    enlarge: "enlarging the picture",
    decode: "finishing the picture",
    upscale: `tile ${running.step} of ${running.steps}`,
  };
  const parts = [phases[running.phase]];
  if (running.pictures > 1) parts.unshift(`picture ${running.picture + 1} of ${running.pictures}`);
  if (running.attempt > 1) parts.unshift("second attempt");
  if (running.seconds_left !== null) parts.push(`${duration(running.seconds_left)} left`);
  return sentence(parts.join(" · "));
}

export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Which picture is looked at, in one line. */
export function pictureWords(picture) {
  const size = `${picture.width} × ${picture.height} · seed ${picture.seed}`;
  return picture.problem ? `Not saved: ${picture.problem} · ${size}` : `${size} · ${picture.file}`;
}
