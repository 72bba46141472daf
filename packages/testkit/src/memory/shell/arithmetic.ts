/** `$(( … ))` of the memory driver's shell: integers, variables, the usual operators. */
import { SyntaxFault } from './parse.js'

const LEVELS: readonly (readonly string[])[] = [['||'], ['&&'], ['==', '!='], ['<=', '>=', '<', '>'], ['+', '-'], ['*', '/', '%']]

export function arithmetic(source: string, env: ReadonlyMap<string, string>): number {
  const tokens = source.match(/\d+|[A-Za-z_]\w*|\|\||&&|[=!<>]=|[-+*/%<>()!]|\S/g) ?? []
  let at = 0
  const primary = (): number => {
    const token = tokens[at++]
    if (token === undefined) throw new SyntaxFault('arithmetic syntax error')
    if (token === '(') {
      const value = level(0)
      if (tokens[at++] !== ')') throw new SyntaxFault('arithmetic syntax error')
      return value
    }
    if (token === '-') return -primary()
    if (token === '!') return primary() === 0 ? 1 : 0
    if (/^\d/.test(token)) return Number(token)
    if (/^[A-Za-z_]/.test(token)) return Number(env.get(token) ?? '0')
    throw new SyntaxFault('arithmetic syntax error')
  }
  const level = (depth: number): number => {
    const operators = LEVELS[depth]
    if (operators === undefined) return primary()
    let left = level(depth + 1)
    for (let op = tokens[at]; op !== undefined && operators.includes(op); op = tokens[at]) {
      at++
      left = apply(op, left, level(depth + 1))
    }
    return left
  }
  const value = tokens.length === 0 ? 0 : level(0)
  if (at < tokens.length) throw new SyntaxFault('arithmetic syntax error')
  return value
}

function apply(op: string, left: number, right: number): number {
  switch (op) {
    case '+': return left + right
    case '-': return left - right
    case '*': return left * right
    case '/':
    case '%':
      if (right === 0) throw new SyntaxFault('divide by zero')
      return op === '/' ? Math.trunc(left / right) : left % right
    case '<': return Number(left < right)
    case '>': return Number(left > right)
    case '<=': return Number(left <= right)
    case '>=': return Number(left >= right)
    case '==': return Number(left === right)
    case '!=': return Number(left !== right)
    case '&&': return Number(left !== 0 && right !== 0)
    default: return Number(left !== 0 || right !== 0)
  }
}
