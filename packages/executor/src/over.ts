/**
 * The reason with which waits are ended that nobody needs any more.
 * `abort()` without a reason makes a `DOMException` with a stack each time, which is most of the cost of a short wait.
 */
export const OVER = Symbol('no longer needed')
