export { DockerDriver, type DockerDriverOptions } from './docker-driver.js'
export type { RegistryCredentials } from './docker-images.js'
