// How fast something goes: over the last seconds, so that the figure is steady and not old.

const SECONDS = 4;

export class Speed {
  constructor() {
    this.marks = [[performance.now(), 0]];
  }

  /** Note that *done* bytes are done, and return the bytes of a second. */
  at(done) {
    const now = performance.now();
    this.marks.push([now, done]);
    while (this.marks.length > 2 && now - this.marks[0][0] > 1000 * SECONDS) this.marks.shift();
    const [since, before] = this.marks[0];
    return now > since ? (1000 * (done - before)) / (now - since) : 0;
  }
}
