export { DockerImages, type DockerImagesOptions, type RegistryCredentials } from './docker-images.js'
