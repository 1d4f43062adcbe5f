/* clock.ts: time that is measured. */

/** A clock that nobody sets, in ms: an adjusted system clock must not hold up a heartbeat. */
export const now = (): number => performance.now();

/** The longest time of a timer: setTimeout takes more for 1 ms. */
export const maxTimer = 2 ** 31 - 1;
