// Seats as lists of {row, number}: which are adjacent, which are the best, and how to name them.

/**
 * Return the best free seats for a party, as `ticket_client.py --best` chooses them: as near to the middle of the hall
 * as possible, and adjacent if any row has that many adjacent free seats. Otherwise the party is split into groups: each
 * is as large as possible, and all but the first are as near to the first as possible.
 */
export function bestSeats(rows, count) {
  const seats = rows.flatMap((signs, i) => signs.map((sign, j) => ({ row: i + 1, number: j + 1, sign })));
  let free = seats.filter(({ sign }) => sign === "0");
  let target = { row: (rows.length + 1) / 2, number: (rows[0].length + 1) / 2 };
  const best = [];
  while (best.length < count && free.length) {
    const group = nearestGroup(adjacentRuns(free), count - best.length, target);
    if (!best.length) target = centreOf(group);
    best.push(...group);
    free = free.filter((seat) => !group.includes(seat));
  }
  return best;
}

/** Return the names of seats, sorted by row and number: "Row 3, seats 2–4", "Row 5, seat 1". */
export function namesOf(seats) {
  return adjacentRuns(seats).map((run) => {
    const [first, last] = [run[0], run.at(-1)];
    return `Row ${first.row}, ${run.length > 1 ? `seats ${first.number}–${last.number}` : `seat ${first.number}`}`;
  });
}

/** Return the largest group of at most `most` adjacent seats; of several, the one nearest to the target. */
function nearestGroup(runs, most, target) {
  const size = Math.min(most, Math.max(...runs.map((run) => run.length)));
  const groups = runs.filter((run) => run.length >= size).map((run) => {
    const first = Math.ceil(target.number - size / 2) - run[0].number; // puts the group's centre at the target
    const start = Math.min(Math.max(first, 0), run.length - size);
    return run.slice(start, start + size);
  });
  const rowsAway = (group) => Math.abs(group[0].row - target.row);
  const distance = (group) => rowsAway(group) ** 2 + (centreOf(group).number - target.number) ** 2;
  groups.sort((one, other) => distance(one) - distance(other) || rowsAway(one) - rowsAway(other));
  return groups[0];
}

/** Divide sorted seats into runs of adjacent ones. */
function adjacentRuns(seats) {
  const runs = [];
  for (const seat of seats) {
    const last = runs.at(-1)?.at(-1);
    if (last?.row === seat.row && last.number === seat.number - 1) runs.at(-1).push(seat);
    else runs.push([seat]);
  }
  return runs;
}

function centreOf(group) {
  return { row: group[0].row, number: (group[0].number + group.at(-1).number) / 2 };
}
